"""Bad use is answered in one sentence, and leaves nothing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import SHORT, At, Run, contents

Arguments = Callable[[At], list[Any]]


def with_prompts(verb: str, content: str) -> Arguments:
    return lambda at: [verb, at.adapter, "--prompts", at.file(content), *SHORT]


def moved(at: At) -> Path:
    """The adapter, as if its base had been a local folder that is gone."""
    folder = at.tmp / "moved"
    shutil.copytree(at.adapter, folder)
    settings = json.loads((folder / "foresay.json").read_text())
    (folder / "foresay.json").write_text(json.dumps(settings | {"base": str(at.tmp / "gone-base")}))
    return folder


def data_folder(at: At) -> Path:
    (at.tmp / "data").mkdir()
    at.file("", "data/a.jsonl")
    return at.tmp / "data"


REFUSED: dict[str, tuple[Arguments, str]] = {
    **{
        f"{verb}: folder without a model": (
            lambda at, verb=verb, more=more: [verb, at.tmp, *more],
            r"has no foresay\.json, so it is no foresay model; train one with `foresay train`",
        )
        for verb, more in (("generate", ["Hi"]), ("check", []), ("bench", []), ("calibrate", []))
    },
    "generate: a base": (
        lambda at: ["generate", at.bases / "other", "Hi"],
        r"other is a base and has no adapter yet; train one with `foresay train .*other --data YOUR-DATA --out MY-",
    ),
    "chat: a folder that is not there": (
        lambda at: ["chat", at.tmp / "deep" / "down"],
        r"there is no folder .*deep/down; give the folder of a foresay model or its hub id, or, where .* is a base,",
    ),
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
    "info: a path that is not there": (
        lambda at: ["info", at.tmp / "deep" / "down"],
        r"no base '.*deep/down' was found: no such folder, and no hub id \(OWNER/NAME\); give a local folder",
    ),
    **{
        f"{verb}: the folder lies in its data": (
            lambda at, words=words: [*words, "--data", data_folder(at), "--out", at.tmp / "data" / "x"],
            r"data/x is to be written and lies in .*data, which is read as data; give a folder outside of it",
        )
        for verb, words in {"train": ["train", "nano"], "data generate": ["data", "generate", "nano"]}.items()
    },
    **{
        f"generate: {name} without a temperature": (
            lambda at, name=name, value=value: ["generate", at.adapter, "Hi", f"--{name}", value],
            f"{name.replace('-', '_')} was given and temperature is 0, which takes the best token, always; give a temp",
        )
        for name, value in (("top-k", "5"), ("top-p", "0.9"), ("min-p", "0.1"))
    },
    "bench: a folder of prompts": (
        lambda at: ["bench", at.adapter, "--prompts", at.tmp],
        r"is a folder; give one file with a prompt a row",
    ),
    "generate: an address in place of a hub id": (
        lambda at: ["generate", "https://huggingface.co/nobody/nothing", "Hi"],
        "is an address; give the hub id in it, nobody/nothing",
    ),
    "data preview: a base that is not there": (
        lambda at: ["data", "preview", "missing", "--data", at.data],
        r"no base 'missing' was found: no such folder, and the hub is switched off",
    ),
    "data preview: a base without a name": (
        lambda at: ["data", "preview", "", "--data", at.data],
        r"no base '' was found: no such folder, and no hub id \(OWNER/NAME\); give a local folder, a hub id",
    ),
    **{
        f"data {verb}: no data": (
            lambda at, verb=verb, more=more: ["data", verb, "nano", *more, "--data"],
            "data names nothing; give files, folders or hub ids",
        )
        for verb, more in (("preview", []), ("generate", ["--out", "here"]))
    },
    "generate: more threads than can be started": (
        lambda at: ["generate", at.adapter, "Hi", "--threads", "100000"],
        r"threads is 100000; give 1 or more \(this machine has \d+ cores\), at most 1024, or 0",
    ),
    "train: an address in place of a hub id": (
        lambda at: at.train(base="https://huggingface.co/Qwen/Qwen3-0.6B"),
        r"no base 'https://.*' was found: no such folder, and no hub id \(OWNER/NAME\); give Qwen/Qwen3-0\.6B$",
    ),
    "advise: a file that is no base": (
        lambda at: ["advise", at.file("{}", "base.bin")],
        r"no base '.*base\.bin' was found: no such folder, and no hub id",
    ),
    **{
        f"{verb}: adapter whose base was moved": (
            lambda at, verb=verb, more=more: [*verb.split(), moved(at), *more],
            r"moved was trained on .*gone-base, and nothing lies there now; say with --base where that base is",
        )
        for verb, more in (("generate", ["Hi"]), ("info", []), ("check", []), ("serve", ["--port", "0"]))
    },
    "data generate: adapter whose base was moved": (
        lambda at: ["data", "generate", moved(at), "--data", at.data, "--out", at.out],
        r"moved was trained on .*gone-base, and nothing lies there now; say with --base where that base is",
    ),
    "generate: half a character": (
        lambda at: ["generate", "nano", "caf\udce9"],
        r"half a character \(U\+DCE9\) stands at character 4; mend the text, or send it as UTF-8",
    ),
    "check: prompts that the chat template refuses": (
        with_prompts("check", '{"messages": [{"role": "assistant", "content": "Only me."}]}'),
        r"input\.jsonl:1: there is no message before the answer; begin with a user's message",
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
        r"input\.jsonl:1: it has columns body, title; needed are messages, or one of",
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
    "train: output over data with a comma in its name": (
        lambda at: at.train("--overwrite", data=at.file('{"text": "a b c"}', "a,b.jsonl"), out=at.tmp),
        r"a,b\.jsonl, which is read, lies there; give another folder",
    ),
    "train: output over the prompts": (
        lambda at: at.train("--overwrite", "--prompts", at.file('{"text": "a b c"}'), out=at.tmp),
        r"input\.jsonl, which is read, lies there; give another folder",
    ),
    "train: output over the settings": (
        lambda at: at.train("--overwrite", "--config", at.file("rank: 3", "a.yaml"), out=at.tmp),
        r"a\.yaml, which is read, lies there; give another folder",
    ),
    "export: output over the model": (
        lambda at: ["export", at.adapter, "--to", "peft", "--out", at.adapter, "--overwrite"],
        "which is read, lies there; give another folder",
    ),
    "train: heads with a default of masks": (
        lambda at: [*at.train()[:6], "--family", "heads", "--anchors", "24"],
        "anchors is 24 and the family is heads, which has no such setting",
    ),
    "train: no steps": (lambda at: at.train("--steps", "0"), "steps is 0; give 1 or more"),
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
        r"input\.jsonl:2: it has columns title; needed are messages, text, or one of",
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
    "config: nothing after it": (
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
    "eval: nothing to do": (lambda at: ["eval", at.adapter, "--tasks-only"], "--tasks-only was given without tasks"),
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
    **{
        f"{verb}: fewer than no threads": (
            lambda at, words=f"{verb} {more}": [*words.format(at=at).split(), "--threads", "-1"],
            "threads is -1; give 1 or more",
        )
        for verb, more in (
            ("generate", "{at.adapter} Hi"),
            ("demo", ""),
            ("advise", "nano"),
            ("train", "nano --data {at.data} --out {at.out}"),
            ("pretrain", "nano --data {at.data} --out {at.out}"),
            ("study", "ladder nano --data {at.data} --out {at.out}"),
            ("data generate", "nano --data {at.data} --out {at.out}"),
        )
    },
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
