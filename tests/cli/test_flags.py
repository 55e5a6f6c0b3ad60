"""Options across verbs: one name has one default and one meaning, and help lists what is understood."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from foresay.cli.commands import BELOW, VERBS
from foresay.cli.flags import NEEDED, Flag, flags_of
from foresay.cli.views.help import ESSENTIAL
from tests.support.commands import At, Run

KINDS = {verb: VERBS[verb] for verb in VERBS if verb not in BELOW} | {
    f"{verb} {name}": kind for verb in BELOW for name, kind in VERBS.below(verb).items()
}
"""Every command by its words."""
WITHOUT_JSON = ("demo", "chat", "serve")
"""Commands whose help says that they have no --json."""
WITHOUT_THREADS = {"data preview", "export", "convert", "publish", "report"}
"""Commands that run no model."""

WHOLE_MODEL = "a whole model is trained otherwise than an adapter"
WHAT_IS_MADE = "each says what it writes, and where nothing must be written it may be left out"
DIFFER = {
    "anchors": "the preview trains nothing, so it names no mask rows",
    "base": "a verb that makes something of a base is given it first; the others may use another than the model's",
    "batch_size": "answers that are kept are made in larger batches than those that are counted",
    "batch_sizes": "`advise` asks from which size on it pays, `check` wants rows of several requests in each step",
    "data": "each says what of the rows it uses",
    "dtype": "a trained base, a served copy and a pretrained model round at different places",
    "engine": "one serves, the other answers a file: different engines can",
    "eval_every": "an adapter is decoded, a pretrained model is measured in bits per byte",
    "final_rate": WHOLE_MODEL,
    "folder": "one reads a folder of another form, the other one of ours",
    "full": "each says what it does more of",
    "heldout": WHOLE_MODEL,
    "layout": "`eval` counts drafts by position, which `plain` and `planned` do not have",
    "layouts": "`check` covers all that draft; `bench` leaves out the tree, which costs its time and seldom pays",
    "learning_rate": WHOLE_MODEL,
    "masks": "`bench` and `eval` take several, and measure each; export and check say what theirs are for",
    "max_length": "of a training sequence, or of all that a served request may hold",
    "max_new_tokens": "answers end by themselves (512); measured ones are cut (64); paper A's protocol needs 256",
    "model": "some verbs also take a base",
    "num_masks": "a study starts from a named recipe: 0 leaves it as it is",
    "out": WHAT_IS_MADE,
    "parallel": WHOLE_MODEL,
    "plot": "a study draws into its own folder, `bench` has none",
    "prompts": "`train` decodes them on the way, and else holds out examples of its data",
    "rank": "a study starts from a named recipe: 0 leaves it as it is; `compress` cannot guess one",
    "save_dtype": WHOLE_MODEL,
    "save_every": WHOLE_MODEL,
    "seconds": "of training in a demo, of measuring elsewhere",
    "seed": "each says what it draws",
    "sequences": "of a training step, or answered at once",
    "steps": WHOLE_MODEL,
    "temperature": "`check` compares sampled answers, which at 0 there are none of",
    "to": "each has its own forms",
    "tokenizer": "one may be made of bytes, the other comes with a checkpoint",
    "warmup_steps": WHOLE_MODEL,
    "weight_decay": WHOLE_MODEL,
}
"""Options that are not the same everywhere, and why."""


def by_name() -> dict[str, dict[str, Flag]]:
    found: dict[str, dict[str, Flag]] = defaultdict(dict)
    for words, kind in KINDS.items():
        for flag in flags_of(kind):
            assert flag.name not in found or words not in found[flag.name], f"{words} has two options {flag.name}"
            found[flag.name][words] = flag
    return found


def test_an_option_has_one_default_and_one_meaning() -> None:
    differ = {
        name for name, own in by_name().items() if len({(repr(f.default), f.takes, f.text) for f in own.values()}) > 1
    }
    assert differ - DIFFER.keys() == set(), "make them alike, or say in DIFFER why they are not"
    assert DIFFER.keys() - differ == set(), "they are alike now: take them out of DIFFER"


def test_answers_have_one_length_and_measured_ones_another() -> None:
    lengths = {words: flag.default for words, flag in by_name()["max_new_tokens"].items()}
    assert {lengths.pop(words) for words in ("generate", "chat", "serve", "data generate")} == {512}
    assert lengths.pop("eval") == 256
    assert set(lengths.values()) == {64}


def test_every_option_says_what_it_does() -> None:
    for name, own in by_name().items():
        for words, flag in own.items():
            assert re.fullmatch(r"[A-Z`0-9].*[.).]", flag.text, flags=re.S), f"{words} --{name}: {flag.text!r}"


def test_what_help_shows_first_are_options() -> None:
    assert by_name().keys() >= ESSENTIAL


@pytest.mark.parametrize("words", KINDS)
def test_help_lists_what_is_understood(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """tyro's own help names every flag that it parses: ours has the same, no more and no less."""
    with pytest.raises(SystemExit):
        tyro.cli(KINDS[words], args=["--help"], config=(tyro.conf.OmitArgPrefixes,))
    understood = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", _headings(capsys.readouterr().out))) - {"--help"}
    ours = {word for flag in flags_of(KINDS[words]) for word in re.findall(r"--[a-z-]+", flag.spellings)}
    off = {f"--no-{word.removeprefix('--')}" for word in ours}
    assert ours - understood == set()
    assert understood - ours - off == set()


def _headings(shown: str) -> str:
    """The lines of tyro's help that name options, not those that tell what they do."""
    return "\n".join(line for line in shown.splitlines() if re.match(r"^[│ ] *(-h, )?--", line))


@pytest.mark.parametrize("words", KINDS)
def test_every_verb_has_json_or_says_otherwise(words: str, run: Run) -> None:
    has = "json" in {flag.name for flag in flags_of(KINDS[words])}
    assert has == (words not in WITHOUT_JSON)
    assert has or "no --json" in " ".join(run(*words.split(), "--help").out.split())


def test_what_runs_a_model_takes_threads() -> None:
    assert set(KINDS) - set(by_name()["threads"]) == WITHOUT_THREADS


def test_a_command_is_read_as_data() -> None:
    @dataclass
    class Inner:
        """What is inside. More of it."""

        depth: int = 1
        """How deep."""

    @dataclass
    class Command:
        where: Annotated[str, NEEDED, tyro.conf.Positional] = ""
        """Where."""
        kind: Literal["a", "b"] | None = None
        """Which."""
        colour: Annotated[bool, tyro.conf.arg(aliases=("--color",))] = True
        """Show
        colours."""
        files: tuple[Path, ...] = (Path("x"), Path("y"))
        """Files."""
        inner: Inner = field(default_factory=lambda: Inner(depth=2))

    Command.__annotations__["inner"] = Inner
    where, kind, colour, files, depth = flags_of(Command)
    assert (where.positional, where.required, where.spellings) == (True, True, "WHERE")
    assert (kind.spellings, kind.default_text) == ("--kind {a,b}", "")
    assert (colour.spellings, colour.text, colour.default_text) == (
        "--colour, --color, --no-colour",
        "Show colours.",
        "on",
    )
    assert (files.spellings, files.default_text) == ("--files PATH ...", "x y")
    assert (depth.group, depth.default, depth.required) == ("What is inside", 2, False)


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_settings_are_printed_without_data(verb: str, run: Run, at: At) -> None:
    said = run(verb, "--print-config")
    assert (said.status, said.err) == (0, "")
    again = run(verb, "--config", at.file(said.out, "all.yaml"), "--print-config")
    assert again.out == said.out
    assert "steps: " in said.out
    refused = run(verb, "nano")
    assert (refused.status, refused.out) == (2, "")
    assert f"foresay {verb} needs --data TEXT ... and --out PATH too (foresay {verb} --help" in refused.err


def test_what_is_converted_is_told_as_an_object(run: Run, at: At) -> None:
    said = run("export", at.adapter, "--to", "peft", "--out", at.out, "--json")
    assert json.loads(said.out) == {"folder": str(at.out), "form": "peft"}
