"""The command line: results on stdout, everything else on stderr, and bad use answered in one sentence."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from foresay.cli.commands import VERBS
from foresay.cli.commands.options import Opening, filled
from foresay.cli.config_file import with_config
from foresay.cli.main import main
from foresay.data.config import DataConfig
from foresay.data.prompts import Prompt, first_of_each_domain
from foresay.decoding.sampling import chooser as choose
from foresay.decoding.sampling.randomness import SeededDice
from foresay.evaluation.config import CheckConfig
from foresay.foundation import heartbeat
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.models.config import LoadConfig, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.objectives import masks
from tests.support.toys import LLAMA

ROWS = [{"prompt": f"Say {number}.", "response": f"I say {number}, and {number} again."} for number in range(12)]
SMALL = [
    "--sequences",
    "2",
    "--anchors",
    "2",
    "--heldout",
    "2",
    "--num-masks",
    "3",
    "--rank",
    "2",
    "--max-length",
    "64",
    "--tracker",
    "none",
]
TRAIN = ["--steps", "2", "--tracker", "none", *SMALL]
SHORT = ["--max-new-tokens", "6"]
TWO = ["--layouts", "linear", "quadratic"]
LOADED = "base: nano in float32 on cpu\n"
"""What every command that opens the shared adapter says on stderr."""
CHECKED = ["--per-domain", "1", "--shift", "0.5", *TWO, *SHORT]


@dataclass(frozen=True)
class At:
    """Where a test finds things."""

    tmp: Path
    """Its own, where nothing may appear when a command is refused."""
    adapter: Path
    """Trained for two steps on nano; nobody changes it."""
    data: Path
    """Rows that can be trained on."""
    bases: Path
    """Folders of bases: other (a Llama), mamba, t5, bert."""

    @property
    def out(self) -> Path:
        return self.tmp / "out"

    def file(self, content: str | bytes, name: str = "input.jsonl") -> Path:
        path = self.tmp / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def train(self, *more: Any, base: Any = "nano", data: Path | None = None, out: Path | None = None) -> list[Any]:
        return ["train", base, "--data", data or self.data, "--out", out or self.out, *TRAIN, *more]


@dataclass(frozen=True)
class Said:
    """What a command left."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data and the adapter that every test uses."""
    folder = tmp_path_factory.mktemp("shared")
    data = folder / "data.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    assert main(["train", "nano", "--data", str(data), "--out", str(folder / "adapter"), *TRAIN]) == 0
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases with nano's tokenizer: one of the right kind and others."""
    folder = tmp_path_factory.mktemp("bases")
    models = {
        "other": LLAMA.model(vocab_size=4096),
        "mamba": tiny("Mamba", hidden_size=32, num_hidden_layers=2),
        "bert": tiny("Bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48),
        "t5": tiny("T5", d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        load_tokenizer("nano").save_pretrained(folder / name)
    return folder


def tiny(kind: str, **settings: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{kind}Config")(vocab_size=4096, **settings)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config)
    return model


@pytest.fixture
def at(shared: Path, bases: Path, tmp_path: Path) -> At:
    return At(tmp_path, shared / "adapter", shared / "data.jsonl", bases)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """Runs a command in this process."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    threads = torch.get_num_threads()

    def command(*arguments: Any) -> Said:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # tyro's way, after a misspelt option and after --help
            status = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    yield command
    torch.set_num_threads(threads)


Run = Callable[..., Said]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and every folder as an empty one."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


# Bad use.

Arguments = Callable[[At], list[Any]]


def with_prompts(verb: str, content: str) -> Arguments:
    return lambda at: [verb, at.adapter, "--prompts", at.file(content), *SHORT]


REFUSED: dict[str, tuple[Arguments, str]] = {
    **{
        f"{verb}: folder without a model": (
            lambda at, verb=verb, more=more: [verb, at.tmp, *more],
            r"has no foresay\.json, so it is no foresay model; train one with `foresay train`",
        )
        for verb, more in (("generate", ["Hi"]), ("check", []), ("bench", []), ("calibrate", []))
    },
    "train: folder without a base": (
        lambda at: at.train(base=at.tmp),
        r"is a folder without config\.json; give a folder with a Hugging Face model, a GGUF file, a hub id, smol",
    ),
    "info: folder without a model or a base": (
        lambda at: ["info", at.tmp],
        r"is a folder without config\.json; give a folder with a Hugging Face model, a GGUF file, a hub id, smol",
    ),
    "info: recurrent base": (
        lambda at: ["info", at.bases / "mamba"],
        "MambaForCausalLM keeps a recurrent state.*; give a decoder-only attention model",
    ),
    "info: a base of a base": (
        lambda at: ["info", at.bases / "other", "--base", "nano"],
        "other is no foresay model, so it has no other base; leave out --base",
    ),
    "train: hub id while offline": (
        lambda at: at.train(base="nobody/nothing"),
        r"no base 'nobody/nothing' was found: .*HF_HUB_OFFLINE\); give a local folder, a reachable hub id, smollm2 or",
    ),
    "generate: hub id while offline": (
        lambda at: ["generate", at.adapter, "Hi", "--base", "nobody/nothing"],
        r"no base 'nobody/nothing' was found: .*HF_HUB_OFFLINE\); give a local folder",
    ),
    "train: recurrent base": (
        lambda at: at.train(base=at.bases / "mamba"),
        "MambaForCausalLM keeps a recurrent state.*; give a decoder-only attention model",
    ),
    "train: encoder-decoder": (
        lambda at: at.train(base=at.bases / "t5"),
        "is a t5 model, not a causal LM; give a decoder-only attention model",
    ),
    "train: encoder": (
        lambda at: at.train(base=at.bases / "bert"),
        "BertLMHeadModel gives other logits .*; give a decoder-only attention model",
    ),
    "train: missing data": (
        lambda at: at.train(data=at.tmp / "nowhere.jsonl"),
        r"data file .*nowhere\.jsonl does not exist; give a local JSON, JSONL or text file",
    ),
    "train: empty data": (lambda at: at.train(data=at.file("")), r"input\.jsonl is empty; give a file with chat"),
    "train: data not JSON": (
        lambda at: at.train("--strict", data=at.file('{"text": "a b c"}\n{"text" "b"}\n')),
        r"input\.jsonl:2 is not JSON \(Expecting ':' delimiter\); mend or remove the line",
    ),
    "train: data without columns": (
        lambda at: at.train(data=at.file('{"title": "a", "body": "b"}\n')),
        r"input\.jsonl:1 has columns body, title; needed are messages, or one of",
    ),
    "train: data not UTF-8": (
        lambda at: at.train(data=at.file(b'{"text": "\xff"}')),
        r"input\.jsonl:1 is not UTF-8 at byte 10; save it as UTF-8",
    ),
    "train: prompts longer than the maximum": (
        lambda at: at.train(data=at.file(json.dumps({"prompt": "word " * 200, "response": "yes"}))),
        r"none of the 1 rows of .* has two answer tokens within 64 tokens; raise --max-length",
    ),
    "train: one example": (
        lambda at: at.train(data=at.file('{"prompt": "Say hi.", "response": "Hi."}')),
        "the data holds 1 usable example; give at least 2",
    ),
    "train: folder not empty": (
        lambda at: at.train(out=at.file("mine").parent),
        "exists and is not empty; give another folder or --overwrite",
    ),
    "train: file in place of a folder": (
        lambda at: at.train("--overwrite", out=at.file("mine")),
        r"input\.jsonl is a file; give a folder for the artefact",
    ),
    "train: no steps": (lambda at: at.train("--steps", "0"), "steps is 0; give at least 1"),
    "train: missing prompts": (
        lambda at: at.train("--prompts", at.tmp / "nowhere.jsonl"),
        r"nowhere\.jsonl does not exist; give a local JSON, JSONL or text file",
    ),
    "info: another base": (
        lambda at: ["info", at.adapter, "--base", at.bases / "other"],
        r"was trained on nano with base \w+, and .*other has \w+; give the base it was trained on, or train a new",
    ),
    **{
        f"{verb}: more masks than trained": (
            lambda at, verb=verb, more=more: [verb, at.adapter, *more, "--masks", "4", *SHORT],
            "4 masks were asked for and the adapter was trained with 3; ask for at most 3",
        )
        for verb, more in (("generate", ["Hi"]), ("check", ["--per-domain", "1"]), ("bench", ["--per-domain", "1"]))
    },
    "generate: empty prompt": (
        lambda at: ["generate", at.adapter, "", "--raw"],
        "prompt 1 has no tokens; give at least one",
    ),
    "generate: prompt past the context": (
        lambda at: ["generate", at.adapter, "word " * 1100],
        r"prompt 1 has \d+ tokens and the base's context is 1024; shorten it to 1023 or fewer",
    ),
    "check: prompts without columns": (
        with_prompts("check", '{"text": "a"}\n{"title": "b"}\n'),
        r"input\.jsonl:2 has columns title; needed are messages, text, or one of",
    ),
    "bench: no prompts": (with_prompts("bench", "\n"), r"input\.jsonl is empty; give one prompt a row"),
    "train: best without decodes": (
        lambda at: at.train("--keep", "best"),
        "keep is best and eval_every is 0; give the steps between decodes with --eval-every, or keep last",
    ),
    "train: best with nothing held out": (
        lambda at: at.train("--keep", "best", "--eval-every", "1", "--heldout", "0"),
        "keep is best and nothing is held out to decode; give --prompts or --heldout, or keep last",
    ),
    "config: missing": (
        lambda at: at.train("--config", at.tmp / "nowhere.yaml"),
        r"config .*nowhere\.yaml cannot be read .*; give a YAML file of settings",
    ),
    "config: unknown key": (
        lambda at: at.train("--config", at.file("rnak: 8", "a.yaml")),
        r"a\.yaml has unknown key 'rnak'; known are alpha, anchors, .*warmup_steps, weight_decay",
    ),
    "config: no settings": (
        lambda at: at.train("--config", at.file("- rank\n- 8", "a.yaml")),
        r"a\.yaml holds no settings; write one `name: value` a line",
    ),
    "config: empty": (lambda at: at.train("--config", at.file("", "a.yaml")), r"a\.yaml holds no settings"),
    "config: a switch that is neither": (
        lambda at: at.train("--config", at.file("train_masks: perhaps", "a.yaml")),
        "train_masks is 'perhaps'; give true or false",
    ),
    "config: an impossible value": (
        lambda at: at.train("--config", at.file("learning_rate: -1", "a.yaml")),
        "learning_rate is -1.0; give a positive one",
    ),
    "config: nothing behind it": (
        lambda at: [*at.train(), "--config"],
        "--config goes with `foresay train` and `foresay pretrain` and takes a YAML file",
    ),
    "config: another verb": (
        lambda at: ["info", at.adapter, "--config", "a.yaml"],
        "--config goes with `foresay train` and `foresay pretrain` and takes a YAML file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_use_is_answered_in_one_sentence(case: str, at: At, run: Run) -> None:
    arguments, message = REFUSED[case]
    check_refused(arguments(at), message, at, run)


def check_refused(arguments: list[Any], message: str, at: At, run: Run) -> None:
    """Exit 2, one sentence with the cure on stderr, nothing on stdout, nothing written."""
    before, adapter = contents(at.tmp), contents(at.adapter)
    said = run(*arguments)
    assert (said.status, said.out) == (2, "")
    *chatter, line = said.err.strip().splitlines()
    assert all(other.startswith("base: ") for other in chatter)
    assert line.startswith("foresay: ")
    assert re.search(message, line), line
    assert "Traceback" not in line
    assert contents(at.tmp) == before
    assert contents(at.adapter) == adapter


LONG = json.dumps({"text": "word " * 1100})
# What could come to light only in the middle of the work, or deep in a library.
EARLY: dict[str, tuple[Arguments, str]] = {
    "brackets in a name": (lambda at: at.train(data=at.tmp / "a[/b].jsonl"), r"a\[/b\]\.jsonl does not exist"),
    "check: prompt past the context": (with_prompts("check", LONG), "tokens and the base's context is 1024"),
    "bench: prompt past the context": (with_prompts("bench", LONG), "tokens and the base's context is 1024"),
    "check: empty prompt": (with_prompts("check", '{"text": ""}'), "has no tokens"),
    "eval: tasks, and prompts that are none": (
        lambda at: ["eval", at.adapter, "--tasks", "none_such", "--prompts", at.file('{"text": ""}'), *SHORT],
        "has no tokens",
    ),
    "check: messages that are none": (with_prompts("check", '{"messages": ["a"]}'), r"input\.jsonl:1"),
    "train: prompt past the context": (lambda at: at.train("--prompts", at.file(LONG)), "the base's context is 1024"),
    "train: folder below a file": (lambda at: at.train(out=at.file("a") / "out"), r"input\.jsonl.*; give"),
    "train: no masks": (lambda at: at.train("--num-masks", "0"), "num_masks is 0; a block needs at least 1 mask"),
    "train: heads of masks": (
        lambda at: at.train("--heads", "4"),
        "heads is 4 and the family is masks",
    ),
    "train: masks of heads": (lambda at: at.train("--family", "heads", "--num-masks", "3"), "num_masks is 3 and the "),
    "train: negative decay": (lambda at: at.train("--weight-decay", "-1"), "weight_decay is -1"),
    "train: torn weights": (lambda at: at.train(base=torn(at)), "torn"),
    "train: no weights": (lambda at: at.train(base=torn(at, whole=False)), "torn (?!.*no such folder)"),
    "check: no batch": (lambda at: ["check", at.adapter, "--batch-sizes", "0", *SHORT], r"batch_sizes is \(0,\)"),
    "check: a certificate that cannot be": (
        lambda at: ["check", at.adapter, "--out", at.adapter, *SHORT],
        "cannot be written",
    ),
    "eval: a benchmark without a domain": (
        lambda at: ["eval", at.adapter, "--benchmarks", at.file("{}"), *SHORT],
        "has no domain; give DOMAIN=FILE",
    ),
    "eval: a benchmark that is not there": (
        lambda at: ["eval", at.adapter, "--benchmarks", f"math={at.tmp / 'none.jsonl'}", *SHORT],
        "does not exist",
    ),
    "eval: a broken line": (
        lambda at: ["eval", at.adapter, "--benchmarks", f"math={at.file('{')}", *SHORT],
        r"input\.jsonl:1 is not JSON",
    ),
    "eval: two kinds of prompts": (
        lambda at: ["eval", at.adapter, "--benchmarks", "paper", "--prompts", at.file("{}"), *SHORT],
        "prompts and benchmarks were both given",
    ),
    "eval: nothing to do": (lambda at: ["eval", at.adapter, "--no-acceptance"], "nothing is to be done"),
    "advise: acceptance that rises": (lambda at: ["advise", "nano", "--acceptance", "0.2", "0.4"], "acceptance is"),
    "advise: results that are none": (lambda at: ["advise", "nano", "--results", at.file("{}")], "holds no results"),
    "report: nothing in it": (lambda at: ["report", at.tmp, "--out", at.tmp / "page.html"], "holds no results"),
    "report: no place for it": (lambda at: ["report", at.tmp, "--out", at.tmp], "cannot be written"),
    "check: no tokens": (lambda at: ["check", at.adapter, "--max-new-tokens", "0"], "max_new_tokens is 0"),
    "bench: no repeats": (
        lambda at: ["bench", at.adapter, "--repeats", "0", "--per-domain", "1", *SHORT],
        "repeats is 0",
    ),
    "bench: no batch": (lambda at: ["bench", at.adapter, "--batch-sizes", "2", "0"], "batch_sizes has 0"),
    "calibrate: no batch": (lambda at: ["calibrate", at.adapter, "--batch-sizes", "0"], r"batch_sizes is \(0,\)"),
    "calibrate: no context": (lambda at: ["calibrate", at.adapter, "--contexts", "-1"], r"contexts is \(-1,\)"),
    "calibrate: no time": (lambda at: ["calibrate", at.adapter, "--seconds", "0"], "seconds is 0.0"),
    "generate: fewer than no threads": (lambda at: ["generate", at.adapter, "Hi", "--threads", "-1"], "threads is -1"),
    "config: broken": (lambda at: at.train("--config", at.file("a: [", "a.yaml")), r"a\.yaml.*; give a YAML file"),
    "config: not UTF-8": (lambda at: at.train("--config", at.file(b"\xff\xfe", "a.yaml")), r"a\.yaml"),
    "config: written with =": (lambda at: at.train(f"--config={at.file('rnak: 8', 'a.yaml')}"), "unknown key 'rnak'"),
}


def torn(at: At, whole: bool = True) -> Path:
    """A base whose weights are cut in two, or not there."""
    folder = at.tmp / "torn"
    shutil.copytree(at.bases / "other", folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if whole:
        weights.write_bytes(content[: len(content) // 2])
    return folder


@pytest.mark.parametrize("case", EARLY)
def test_bad_use_is_answered_before_the_work_begins(case: str, at: At, run: Run) -> None:
    arguments, message = EARLY[case]
    check_refused(arguments(at), message, at, run)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("info nano --jsno", "--jsno"),
        ("train nano", "--data"),
        ("generate nano Hi --layout diagonal", "diagonal"),
        ("generate nano Hi --masks many", "many"),
        ("fly", "fly"),
        ("", "generate"),
    ],
)
def test_misspelt_command_is_refused(arguments: str, named: str, run: Run) -> None:
    said = run(*arguments.split())
    assert (said.status, said.out) == (2, "")
    assert named in said.err
    assert "--help" in said.err
    assert "Traceback" not in said.err


# Good use.


def one_object(said: Said) -> dict[str, Any]:
    """The JSON on stdout, where nothing else stands."""
    assert said.out.startswith("{\n")
    assert said.out.endswith("}\n")
    content: dict[str, Any] = json.loads(said.out)
    return content


def test_full_leaves_alone_what_was_given() -> None:
    assert filled(CheckConfig(), max_new_tokens=128, shift=0.05) == CheckConfig(max_new_tokens=128, shift=0.05)
    given = CheckConfig(max_new_tokens=256, shift=0.02)
    assert filled(given, max_new_tokens=128, shift=0.05) == given


def test_generate_prints_one_object(at: At, run: Run) -> None:
    said = run("generate", at.adapter, "Say 3.", "--json", *SHORT)
    content = one_object(said)
    assert (said.status, said.err) == (0, LOADED)
    keys = {"base", "dtype", "device", "text", "tokens", "steps", "ended", "tokens_per_step", "acceptance_per_position"}
    assert content.keys() == keys
    assert sum(content["steps"]) == len(content["tokens"])
    assert content["tokens_per_step"] == len(content["tokens"]) / len(content["steps"])


@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
def test_generate_streams_what_the_object_holds(at: At, run: Run, layout: str) -> None:
    text = one_object(run("generate", at.adapter, "Say 3.", "--json", *SHORT))["text"]
    said = run("generate", at.adapter, "Say 3.", "--layout", layout, *SHORT)
    assert (said.status, said.out, said.err) == (0, f"{text}\n", LOADED)
    coloured = run("generate", at.adapter, "Say 3.", "--layout", layout, "--colour", "--stats", *SHORT)
    assert (coloured.status, coloured.out) == (0, f"{text}\n")
    assert re.fullmatch(LOADED + r"\d+ tokens in \d+ steps: .* drafts accepted; ended by (length|stop)\n", coloured.err)


def test_generate_reads_standard_input(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.read", lambda: "Say 3.", raising=False)
    said = run("generate", at.adapter, "-", *SHORT)
    assert said == run("generate", at.adapter, "Say 3.", *SHORT)


def test_train_prints_one_object(at: At, run: Run) -> None:
    said = run(*at.train("--json"))
    content = one_object(said)
    assert said.status == 0
    decoded = {"kept_step", "tokens_per_step", "mean_tokens_per_step", "acceptance", "decodes"}
    assert content.keys() == {
        "folder",
        "base",
        "dtype",
        "device",
        "examples",
        "steps",
        "seconds",
        "loss",
        "losses",
        *decoded,
    }
    assert [decode["step"] for decode in content["decodes"]] == [content["kept_step"]] == [2]
    assert [point["step"] for point in content["losses"]] == [1, 2]
    assert content["losses"][-1]["total"] == content["loss"]
    assert [entry["position"] for entry in content["acceptance"]] == [1, 2, 3]
    assert (content["folder"], content["examples"], content["steps"]) == (str(at.out), 10, 2)
    assert (content["dtype"], content["device"]) == ("float32", "cpu")
    assert set(content["tokens_per_step"]) == {"heldout"}
    # A live view that is drawn once a step belongs to a terminal; here it is a line a step.
    assert "step 1/2" in said.err
    assert "\x1b" not in said.err


def test_print_config_prints_what_config_reads(at: At, run: Run) -> None:
    """Defaults, file and flags, twice through."""
    file = at.file("rank: 5\nposition_weights: [1, 0.5]\ntrain-masks: false\nlearning_rate: 1.0e-05\n", "a.yaml")
    said = run(*at.train("--config", file, "--rank", "7", "--columns", "prompt=Q", "--print-config"))
    assert (said.status, said.err) == (0, "")
    content = yaml.safe_load(said.out)
    kinds = (MTPConfig, LossConfig, TrainConfig, DataConfig, LoadConfig)
    assert content.keys() == {entry.name for kind in kinds for entry in fields(kind)}
    asked = {"rank": 7, "position_weights": [1.0, 0.5], "train_masks": False, "learning_rate": 1e-5, "steps": 2}
    assert {name: content[name] for name in asked} == asked
    assert content["columns"] == ["prompt=Q"]
    assert not at.out.exists()
    again = ["train", "nano", "--data", at.data, "--out", at.out, "--config", at.file(said.out, "b.yaml")]
    assert run(*again, "--print-config").out == said.out


def test_training_is_a_function_of_its_seed(at: At, run: Run) -> None:
    for out, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert run(*at.train("--seed", seed, out=at.tmp / out)).status == 0
    one, two, three = ((at.tmp / out / "foresay.safetensors").read_bytes() for out in ("one", "two", "three"))
    assert one == two != three


def test_check_prints_one_object(at: At, run: Run) -> None:
    said = run("check", at.adapter, "--json", *CHECKED)
    content = one_object(said)
    assert said.status == 0
    keys = {"prompts", "tokens", "dtype", "identical", "ties", "bugs", "tokens_per_step", "divergences", "sentence"}
    assert content.keys() >= {*keys, "sampling"}
    figures = {"samples", "shift", "power", "p_values", "corrected", "control", "has_power", "sentence"}
    assert content["sampling"].keys() >= figures
    assert content["sampling"]["sample"]["temperature"] == 1
    assert content["provenance"]["settings"]["shift"] == 0.5
    assert content["provenance"]["settings"]["dtype"] == content["dtype"] == "float32"
    assert content["untouched"]["holds"]
    assert content["passed"]
    assert (content["prompts"], content["identical"], content["bugs"]) == (4, 8, 0)
    assert content["sentence"] == "Lossless: 8 of 8 answers are identical to plain decoding."


def test_check_says_one_sentence(at: At, run: Run) -> None:
    said = run("check", at.adapter, *CHECKED)
    assert said.status == 0
    first, second, surety, base, third, fourth = said.out.splitlines()
    assert surety.startswith("Of 4 prompts 0 have a bug and 0 differ at all")
    assert base.startswith("The base is untouched")
    assert first == "Lossless: 8 of 8 answers are identical to plain decoding."
    assert re.fullmatch(r"4 prompts, \d+ tokens in float32; per step: linear \d\.\d\d, quadratic \d\.\d\d", second)
    assert third.startswith("Sampling shows no bias: linear p = ")
    assert re.fullmatch(
        r"\d+ answers a layout, \d+ of transformers: a total variation of 0\.50 between 32 classes is found with 80% "
        "chance",
        fourth,
    )


def test_check_without_a_temperature_samples_nothing(at: At, run: Run) -> None:
    said = run("check", at.adapter, *CHECKED, "--temperature", "0")
    assert (said.status, len(said.out.splitlines())) == (0, 4)
    assert one_object(run("check", at.adapter, *CHECKED, "--temperature", "0", "--json"))["sampling"] is None


def test_a_certificate_goes_into_a_file(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3.", "domain": "math"}\n{"prompt": "Be kind.", "domain": "safety"}\n')
    out = at.tmp / "new" / "certificate.json"
    more = ["--prompts", prompts, "--batch-sizes", "1", "2", "--temperature", "0", "--out", out, *TWO, *SHORT]
    said = run("check", at.adapter, *more)
    assert said.status == 0
    assert [path.name for path in out.parent.iterdir()] == ["certificate.json"]
    content = json.loads(out.read_text())
    assert content["domains"] == {"math": 1, "safety": 1}
    assert [(count["layout"], count["batch_size"]) for count in content["counts"]] == [
        ("linear", 1),
        ("quadratic", 1),
        ("linear", 2),
        ("quadratic", 2),
    ]


def test_a_base_that_changes_fails_the_check(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Opening.open

    def spoilt(*args: Any) -> MultiTokenModel:
        model = real(*args)
        model.core.model.model.norm.weight.data[0] += 1e-3
        return model

    monkeypatch.setattr(Opening, "open", spoilt)
    said = run("check", at.adapter, *CHECKED, "--temperature", "0")
    assert said.status == 1
    assert "The base is NOT itself any more: its weights and its logits changed." in said.out
    assert "Lossless: 8 of 8 answers" in said.out


@pytest.mark.parametrize("json_", [True, False], ids=["json", "text"])
def test_check_fails_on_a_bias(at: At, run: Run, monkeypatch: pytest.MonkeyPatch, json_: bool) -> None:
    monkeypatch.setattr(SeededDice, "accept", lambda self, chances, places: chances >= 0)
    said = run("check", at.adapter, *CHECKED, *(["--json"] if json_ else []))
    assert said.status == 1
    assert "Sampling is BIASED in linear and quadratic" in said.out
    assert "Lossless: 8 of 8 answers" in said.out
    if json_:
        assert max(one_object(said)["sampling"]["corrected"].values()) < 0.01


@pytest.mark.parametrize("json_", [True, False], ids=["json", "text"])
def test_check_fails_on_a_bug(at: At, run: Run, monkeypatch: pytest.MonkeyPatch, json_: bool) -> None:
    real = choose.verify_greedy

    def one_up(*args: torch.Tensor) -> Any:
        own = real(*args)
        return replace(own, tokens=(own.tokens + 1) % 4096)

    monkeypatch.setattr(choose, "verify_greedy", one_up)
    said = run("check", at.adapter, *CHECKED, *(["--json"] if json_ else []))
    assert said.status == 1
    assert "NOT lossless: 8 of 8 answers differ" in said.out
    if json_:
        assert one_object(said)["bugs"] == 8
    else:
        assert said.out.count(" bug") >= 8


def test_eval_prints_one_object_and_writes_it(at: At, run: Run) -> None:
    math, safety = (at.file(f'{{"question": "{word}?"}}\n', f"{word}.jsonl") for word in ("two", "kind"))
    out = at.tmp / "eval.json"
    more = ["--benchmarks", f"math={math}", f"safety={safety}", "--masks", "2", "--paper-steps", "3", "--out", out]
    said = run("eval", at.adapter, "--json", *more, *SHORT)
    content = one_object(said)
    assert said.status == 0
    assert [(row["domain"], row["benchmark"], row["masks"]) for row in content["rows"]] == [
        ("math", "two", 2),
        ("safety", "kind", 2),
    ]
    assert json.loads(out.read_text()) == content
    shown = run("eval", at.adapter, *more, *SHORT)
    assert (shown.status, shown.err) == (0, LOADED)
    assert "tokens per step by masks, the first 3 steps" in shown.out
    assert "drafts kept by position" in shown.out


def test_advise_prints_one_object(at: At, run: Run) -> None:
    more = ["--batch-sizes", "1", "--acceptance", "0.6", "0.3", "--num-masks", "2", "--rank", "2", "--max-length", "32"]
    more += ["--sequences", "2", "--anchors", "2"]
    content = one_object(run("advise", "nano", "--json", *more))
    assert content["acceptance"] == {"given": [0.6, 0.3]}
    assert [offer["domain"] for offer in content["offers"]] == ["given"]
    assert content["offers"][0]["best"] in [
        " ".join([entry["entry"]["layout"], *[str(entry["entry"]["masks"])] * bool(entry["entry"]["masks"])])
        for entry in content["offers"][0]["entries"]
    ]
    assert content["training"]["steps"] == 500
    assert content["provenance"]["settings"]["dtype"] == "float32", "nano's checkpoint is in bfloat16"
    said = run("advise", "nano", *more)
    assert (said.status, said.err) == (0, LOADED)
    assert "expected tokens/s, batch 1, 128 tokens cached" in said.out
    assert "Training takes" in said.out


def test_a_report_is_made_of_what_the_verbs_wrote(at: At, run: Run) -> None:
    pytest.importorskip("matplotlib")
    folder = at.tmp / "run"
    assert run("check", at.adapter, *CHECKED, "--temperature", "0", "--out", folder / "check.json").status == 0
    assert (
        run("eval", at.adapter, "--per-domain", "1", "--masks", "3", *SHORT, "--out", folder / "eval.json").status == 0
    )
    (folder / "costs.json").write_text(run("calibrate", at.adapter, "--seconds", "1", "--json").out)
    (folder / "bench.json").write_text(run("bench", at.adapter, "--json", *BENCH, "--per-domain", "1").out)
    said = run("report", folder, "--out", at.tmp / "report.html", "--title", "Mine")
    assert (said.status, said.out) == (0, f"the report lies in {at.tmp / 'report.html'}\n")
    page = (at.tmp / "report.html").read_text()
    assert "<h1>Mine</h1>" in page
    assert "Lossless: 8 of 8 answers are identical to plain decoding; " in page
    assert page.count("<figure>") == 4


def test_bench_prints_one_object(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3.", "domain": "say"}\n{"text": "Once upon a time"}\n')
    said = run("bench", at.adapter, "--json", "--prompts", prompts, "--repeats", "1", "--masks", "1", "3", *SHORT)
    content = one_object(said)
    assert said.status == 0
    assert content.keys() == {"results", "provenance"}
    assert content["provenance"]["settings"]["dtype"] == "float32"
    decoders = [(result["domain"], result["decoder"], result["masks"]) for result in content["results"]]
    ours = [("linear", 1), ("linear", 3), ("quadratic", 1), ("quadratic", 3), ("planned", 0)]
    names = [("transformers", 0), ("prompt lookup", 0), ("plain", 0), *ours]
    assert decoders == [(domain, *name) for domain in ("say", "input") for name in names]
    assert all(result["identical"] == result["prompts"] == 1 for result in content["results"])


BENCH = ["--repeats", "1", "--layouts", "quadratic", *SHORT]


def test_bench_prints_tables(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3."}\n')
    said = run("bench", at.adapter, "--prompts", prompts, "--batch-sizes", "1", "2", *BENCH)
    assert (said.status, said.err) == (0, LOADED)
    for words in (
        "batch 1, prompts as they are, float32",
        "batch 2, prompts as they are, float32",
        "prompt lookup",
        "quadratic 3",
        "drafts kept, by position, %",
        "times plain, mean of the domains, prompts as they are",
        "6 of 6 answers are identical to transformers' own",
    ):
        assert words in said.out


def test_bench_draws(at: At, run: Run) -> None:
    pytest.importorskip("matplotlib")
    prompts = at.file('{"prompt": "Say 3."}\n')
    said = run("bench", at.adapter, "--prompts", prompts, "--json", "--plot", at.tmp / "new" / "pictures", *BENCH)
    assert one_object(said)["results"]
    drawn = sorted((at.tmp / "new" / "pictures").iterdir())
    assert [path.name for path in drawn] == ["costs.png", "speedups.png"]
    assert all(str(path) in said.err for path in drawn)


def test_bench_says_before_measuring_that_it_cannot_draw(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(MultiTokenModel, "from_pretrained", lambda *_, **__: pytest.fail("it went on"))
    said = run("bench", at.adapter, "--plot", at.tmp / "pictures")
    assert (said.status, said.out) == (2, "")
    assert "not installed here; pip install 'foresay[plot]'" in said.err
    assert contents(at.tmp) == {}


def test_compress_makes_a_smaller_model_that_says_the_same(at: At, run: Run) -> None:
    prompts, small = at.file('{"prompt": "Say 3."}\n'), at.tmp / "small"
    said = run("compress", at.adapter, "--rank", "1", "--out", small, "--prompts", prompts, "--json")
    content = one_object(said)
    assert (said.status, said.err, content["rank"], content["dtype"]) == (0, LOADED, 1, "float32")
    assert one_object(run("info", small, "--json"))["settings"]["rank"] == 1
    assert run("generate", small, "Hi", *SHORT).out == run("generate", at.adapter, "Hi", *SHORT).out
    again = run("compress", at.adapter, "--rank", "1", "--out", small, "--prompts", prompts)
    assert (again.status, again.out) == (2, "")
    assert "--overwrite" in again.err


def test_compress_refuses_a_rank_that_is_not_smaller(at: At, run: Run) -> None:
    said = run("compress", at.adapter, "--rank", "2", "--out", at.tmp / "small")
    assert (said.status, said.out) == (2, "")
    assert "rank 2 was asked for and the adapter has 2; give a smaller one" in said.err
    assert contents(at.tmp) == {}


def test_calibrate_prints_one_object_and_keeps_it(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(at.tmp / "cache"))
    calibrate = ["calibrate", at.adapter, "--batch-sizes", "1", "3", "4", "--contexts", "20", "--json"]
    said = run(*calibrate)
    content = one_object(said)
    assert (said.status, said.err) == (0, LOADED)
    assert content.keys() == {"curves", "acceptance", "provenance"}
    assert content["provenance"]["settings"]["dtype"] == "float32"
    assert [(curve["batch_size"], curve["context_tokens"]) for curve in content["curves"]] == [(1, 128), (4, 128)]
    for curve in content["curves"]:
        assert max(found["entry"]["masks"] for found in curve["entries"]) == 3
        assert curve["entries"][0]["entry"] == {"layout": "plain", "masks": 0}
        assert sum(found["chosen"] for found in curve["entries"]) == 1
    kept = contents(at.tmp / "cache")
    assert len(kept) == 2
    assert run("generate", at.adapter, "Hi", "--layout", "planned", *SHORT).status == 0
    assert contents(at.tmp / "cache") == kept
    run(*calibrate)
    assert contents(at.tmp / "cache").keys() == kept.keys()
    assert contents(at.tmp / "cache") != kept, "it measures anew"


def test_calibrate_prints_a_table(at: At, run: Run) -> None:
    said = run("calibrate", at.adapter, "--contexts", "1", "--seconds", "0.01")
    assert (said.status, said.err) == (0, LOADED)
    for words in ("batch 1, 128 tokens cached", "expected tokens/s", "plain <", "< is what planned begins with"):
        assert words in said.out


def test_planned_says_what_it_waits_for(at: At, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(at.tmp / "cache"))
    shares: list[float] = []
    monkeypatch.setattr("foresay.cli.commands.generate.calibration_watch", lambda bar: shares.append)
    generate = ["generate", at.adapter, "Hi", "--layout", "planned", *SHORT]
    assert run(*generate).status == 0
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    shares.clear()
    assert run(*generate).status == 0
    assert shares == [], "the second time nothing is measured"


def test_planned_measures_nothing_for_what_is_refused(at: At, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr("foresay.cli.commands.generate.planner_for", lambda *_: pytest.fail("it measured"))
    said = run("generate", at.adapter, "Hi", "--layout", "planned", "--masks", "4")
    assert (said.status, said.out) == (2, "")
    assert "4 masks were asked for and the adapter was trained with 3" in said.err


def test_info_prints_one_object(at: At, run: Run) -> None:
    said = run("info", at.adapter, "--json")
    content = one_object(said)
    assert (said.status, said.err) == (0, LOADED)
    assert (content["base"], content["base_kind"], content["context"]) == ("nano", "LlamaForCausalLM", 1024)
    assert content["settings"] == {
        "num_masks": 3,
        "rank": 2,
        "alpha": 0.0,
        "lora_targets": ["all"],
        "sampler": "residual",
        "train_masks": True,
    }
    assert content["provenance"]["settings"]["steps"] == 2
    assert content["provenance"]["settings"]["train"]["dtype"] == content["dtype"] == "float32"
    assert content["provenance"]["settings"]["data"][0]["name"] == "data.jsonl"
    assert content["fingerprints"].keys() == {"base", "tokenizer", "chat_template", "embeddings", "base_adapter"}


def test_what_takes_long_says_that_it_is_at_work(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS", 0.001)
    assert re.search(r"^info: at work for \d+ s$", run("info", at.adapter).err, flags=re.M)


def test_info_prints_a_page(at: At, run: Run) -> None:
    said = run("info", at.adapter)
    assert said.status == 0
    assert said.out.startswith(f"folder: {at.adapter}\nbase: nano\n")


def test_info_of_a_base_says_what_an_adapter_would_weigh(at: At, run: Run) -> None:
    content = one_object(run("info", at.bases / "other", "--json"))
    model = AutoModelForCausalLM.from_pretrained(at.bases / "other")
    assert (content["family"], content["base_kind"], content["dtype"]) == ("llama", "LlamaForCausalLM", "float32")
    assert content["base_parameters"] == model.num_parameters()
    assert (content["layers"], content["adapted_linears"], content["vocabulary"]) == (2, 14, 4096)
    for size in content["adapters"]:
        adapter = MultiTokenModel.from_base(model, MTPConfig(rank=size["rank"])).core.added
        assert size["parameters"] == sum(parameter.numel() for parameter in adapter.parameters())
        assert size["megabytes"] == size["parameters"] * 2 / 1e6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_opens_in_other_dtypes(at: At, run: Run, dtype: str) -> None:
    said = run("generate", at.adapter, "Say 3.", "--dtype", dtype, *SHORT)
    assert said.status == 0
    assert said.out.strip()


def test_a_base_without_a_chat_template_goes_on_with_text(at: At, run: Run) -> None:
    base = plain_base(at)
    assert run(*at.train(base=base)).status == 0
    said = run("generate", at.out, "Once upon a time", *SHORT)
    assert (said.status, said.err) == (0, f"base: {base} in float32 on cpu\n")


def test_a_base_without_a_chat_template_is_checked(at: At, run: Run) -> None:
    assert run(*at.train(base=plain_base(at))).status == 0
    assert run("check", at.out, *CHECKED).status == 0


def plain_base(at: At) -> Path:
    """The other base with a tokenizer that has no chat template."""
    folder = at.tmp / "plain-base"
    LLAMA.model(vocab_size=4096).save_pretrained(folder)
    tokenizer = load_tokenizer("nano")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


def test_an_adapter_finds_its_base_from_anywhere(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(at.bases / "other", at.tmp / "here" / "base")
    monkeypatch.chdir(at.tmp / "here")
    assert run(*at.train(base="base")).status == 0
    monkeypatch.chdir(at.tmp)
    assert one_object(run("info", at.out, "--json"))["base"] == str((at.tmp / "here" / "base").resolve())


def test_overwriting_needs_the_flag(at: At, run: Run) -> None:
    shutil.copytree(at.adapter, at.out)
    before = contents(at.out)
    assert run(*at.train("--rank", "3")).status == 2
    assert contents(at.out) == before
    assert run(*at.train("--rank", "3", "--overwrite")).status == 0
    assert one_object(run("info", at.out, "--json"))["settings"]["rank"] == 3


# Interruptions.


def interrupt_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C in the middle of a step."""
    real, calls = masks.two_pass, [0]

    def two_pass(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            raise KeyboardInterrupt
        return real(*args)

    patch.setattr(masks, "two_pass", two_pass)


def test_interrupted_training_leaves_the_old_artefact(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(at.adapter, at.out)
    before = contents(at.tmp)
    interrupt_at(monkeypatch, 2)
    said = run(*at.train("--overwrite", "--rank", "3"))
    assert (said.status, said.out) == (130, "")
    assert said.err.endswith("foresay: interrupted; nothing half written was left behind\n")
    assert contents(at.tmp) == before


def test_interrupted_training_leaves_the_last_checkpoint(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 2)
    assert run(*at.train("--save-every", "1")).status == 130
    assert sorted(path.name for path in at.tmp.iterdir()) == ["out", "out.run"]
    assert MultiTokenModel.from_pretrained(at.out).provenance["settings"]["steps"] == 1
    said = run(*at.train("--save-every", "1", "--rank", "3"))
    assert (said.status, said.out) == (2, "")
    assert "rank was 2, is 3; go on as it was begun, or give --restart to begin anew" in said.err
    monkeypatch.undo()
    assert run(*at.train("--save-every", "1")).status == 0
    assert [path.name for path in at.tmp.iterdir()] == ["out"]
    assert MultiTokenModel.from_pretrained(at.out).provenance["settings"]["steps"] == 2


def test_full_disk_is_answered_in_one_sentence(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foresay.models.artefact.folder.save_file", full)
    said = run(*at.train())
    assert (said.status, said.out) == (2, "")
    assert "could not be written ([Errno 28] No space left on device); what stood there before" in said.err
    assert list(at.tmp.iterdir()) == []


# YAML settings.


def test_settings_become_flags(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("rank: 4\nlearning-rate: 1e-3\nsampler: paper\ntrain_masks: false\nreal_rows: true\n")
    path.write_text(path.read_text() + "position_weights: [1, 0.5]\n")
    asked = with_config(["train", "nano", "--config", str(path), "--out", "o"])
    assert asked[:4] == ["train", "nano", "--out", "o"]
    flags = ["--rank", "4", "--learning-rate", "1e-3", "--sampler", "paper", "--no-train-masks", "--real-rows"]
    assert asked[4:] == [*flags, "--position-weights", "1", "0.5"]


@pytest.mark.parametrize("flags", [["--learning-rate", "1"], ["--learning_rate", "1"], ["--learning-rate=1"]])
def test_flags_win_over_settings(tmp_path: Path, flags: list[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("learning_rate: 1e-3\nrank: 4\n")
    assert with_config(["train", *flags, "--config", str(path)]) == ["train", *flags, "--rank", "4"]


def test_switches_win_over_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train_masks: true\nreal_rows: true\n")
    assert with_config(["train", "--no-train-masks", "--config", str(path)])[1:] == ["--no-train-masks", "--real-rows"]
    path.write_text("train_masks: true\nreal_rows: false\n")
    assert with_config(["train", "--config", str(path)]) == ["train"], "defaults need no flag"


def test_without_a_config_nothing_changes() -> None:
    assert with_config(["train", "nano", "--rank", "3"]) == ["train", "nano", "--rank", "3"]
    with pytest.raises(ConfigError, match="--config goes with"):
        with_config(["--config"])


def test_settings_reach_the_run(at: At, run: Run) -> None:
    settings = "rank: 5\nsampler: paper\nwarmup-steps: 1\nseed: 9\ntarget: label\ntrain_masks: false\n"
    config = at.file(settings + "position_weights: [1, 0.5]\n", "a.yaml")
    arguments = ["train", "nano", "--data", at.data, "--out", at.out, "--config", config]
    small = ["--steps", "1", "--sequences", "2", "--anchors", "2", "--num-masks", "2", "--max-length", "64"]
    assert run(*arguments, *small, "--seed", "4", "--heldout", "1").status == 0
    said = json.loads((at.out / "foresay.json").read_text())
    assert said["mtp"] == {
        "num_masks": 2,
        "rank": 5,
        "alpha": 0.0,
        "lora_targets": ["all"],
        "sampler": "paper",
        "train_masks": False,
    }
    used = said["provenance"]["settings"]
    assert (used["train"]["warmup_steps"], used["train"]["seed"], used["train"]["steps"]) == (1, 4, 1)
    assert (used["losses"]["target"], used["losses"]["position_weights"]) == ("label", [1.0, 0.5])


def test_recipes_are_read() -> None:
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert with_config(["train", "--config", str(recipe)])[1:]


# Help.


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples(verb: str, run: Run) -> None:
    said = run(verb, "--help")
    assert (said.status, said.err) == (0, "")
    assert "Examples" in said.out
    assert f"foresay {verb}" in said.out.partition("Examples")[2]


def test_help_names_every_verb(run: Run) -> None:
    said = run("--help")
    assert said.status == 0
    for verb in VERBS:
        assert verb in said.out


# As a program.


def said(err: str) -> str:
    """What a program told on stderr, without lines that say how far it is: they come where the machine is slow."""
    return re.sub(r"^.*: (at work for|\d+ of \d+, after) .*\n", "", err, flags=re.M)


def program(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "foresay", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_program_prints_its_result_and_nothing_else(at: At) -> None:
    with program("generate", at.adapter, "Say 3.", "--json", *SHORT) as process:
        out, err = process.communicate()
    assert one_object(Said(process.returncode, out, err))["tokens"]
    assert (process.returncode, said(err).replace("bfloat16", "float32")) == (0, LOADED)


def test_program_answers_bad_use(at: At) -> None:
    with program("check", at.tmp) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert said(err).startswith("foresay: ")
    assert len(said(err).splitlines()) == 1


def test_program_whose_reader_went_away_says_nothing(at: At) -> None:
    with program("info", at.adapter, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, said(err).replace("bfloat16", "float32")) == (0, LOADED)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--per-domain", "-1"], "per_domain is -1"),
        (["--max-new-tokens", "-3"], "max_new_tokens is -3"),
        (["--shift", "-0.1"], "shift is -0.1"),
    ],
    ids=str,
)
def test_negative_numbers_are_refused(flags: list[str], message: str, at: At, run: Run) -> None:
    said = run("check", at.adapter, *flags)
    assert (said.status, said.out) == (2, "")
    assert message in said.err


def test_per_domain_counts_in_a_file_too(at: At, run: Run) -> None:
    rows = [{"prompt": f"Say {index}.", "domain": "abba"[index]} for index in range(4)]
    prompts = at.file("\n".join(map(json.dumps, rows)))
    flags = ["--prompts", prompts, "--per-domain", "1", "--temperature", "0", "--layouts", "linear", "--json", *SHORT]
    assert json.loads(run("check", at.adapter, *flags).out)["prompts"] == 2


def test_the_first_of_each_domain_keep_their_order() -> None:
    prompts = [Prompt((number,), domain, "") for number, domain in enumerate("abbacb")]
    assert [prompt.ids for prompt in first_of_each_domain(prompts, 2)] == [(0,), (1,), (2,), (3,), (4,)]


def test_names_that_look_like_markup_are_printed_as_they_are(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3.", "domain": "[/b]"}\n')
    said = run("bench", at.adapter, "--prompts", prompts, *BENCH)
    assert said.status == 0
    assert "[/b]" in said.out


def test_the_demo_replaces_no_folder_but_its_own(at: At, run: Run) -> None:
    (at.tmp / "thesis").mkdir()
    (at.tmp / "thesis" / "chapter").write_text("1")
    said = run("demo", "--seconds", "1", "--out", at.tmp / "thesis")
    assert said.status == 2
    assert "is not empty" in said.err
    assert (at.tmp / "thesis" / "chapter").read_text() == "1"


def test_a_reader_that_goes_away_is_no_failed_check(at: At) -> None:
    command = f"{sys.executable} -m foresay info {shlex.quote(str(at.adapter))} | true; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0
