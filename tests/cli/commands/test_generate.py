"""`foresay generate` at the command line."""

import io
import re

import pytest

from foresay.cli.terminal import Terminal
from foresay.cli.views.text import AnswerStream
from foresay.decoding.step_costs import Measurement
from foresay.decoding.steps import Step
from foresay.models.base.load import load_tokenizer
from foresay.models.masks.model import MaskModel
from tests.support.commands import LOADED, SHORT, At, Run, one_object, plain_base


def test_generate_prints_one_object(at: At, run: Run) -> None:
    said = run("generate", at.adapter, "Say 3.", "--json", *SHORT)
    content = one_object(said)
    assert (said.status, said.err) == (0, LOADED)
    keys = {"base", "dtype", "device", "text", "tokens", "steps", "ended", "tokens_per_step", "acceptance_per_position"}
    keys |= {"layouts", "reason"}
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
    none = "--colour shows no colours, for stdout is no terminal\n"
    counted = r"\d+ tokens in \d+ steps: .* drafts accepted; ended by (length|stop)\n"
    assert re.fullmatch(LOADED + none + counted, coloured.err)


def test_generate_reads_standard_input(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.read", lambda: "Say 3.", raising=False)
    plain = ["--layout", "plain", *SHORT]
    assert run("generate", at.adapter, "-", *plain) == run("generate", at.adapter, "Say 3.", *plain)


@pytest.mark.parametrize("colour", [(), ("--colour",)])
def test_planned_waits_for_no_measurement_and_says_what_it_chose(
    at: At, monkeypatch: pytest.MonkeyPatch, run: Run, colour: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(at.tmp / "cache"))
    steps: list[str] = []
    monkeypatch.setattr(Measurement, "turn", lambda self: steps.append("measured"))
    monkeypatch.setattr(AnswerStream, "tell", lambda self, index, step: steps.append("said"))
    said = run("generate", at.adapter, "Hi", "--layout", "planned", "--stats", *colour, *SHORT)
    assert said.status == 0
    assert steps[0] == "said", "the first token comes before anything is measured"
    assert "measured" in steps
    assert re.search(r"planned: \d+ plain steps; what other steps cost here is not known yet \(0% measured\)", said.err)


def test_a_coloured_answer_is_written_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is written when it is over; rich wraps no piece by itself."""
    console = Terminal(soft_wrap=True, width=9, force_terminal=True, color_system="standard", file=io.StringIO())
    monkeypatch.setattr("foresay.cli.views.text.OUT", console)
    tokenizer = load_tokenizer("nano")
    stream, written = AnswerStream(tokenizer, colour=True), []
    for word in ("Say", " three", "fold"):
        stream.tell(0, Step(tuple(tokenizer.encode(word, add_special_tokens=False)), drafted=0, accepted=0, depth=0))
        written.append(console.file.getvalue())
    stream.end()
    written.append(console.file.getvalue())
    said = "\x1b[96mSay\x1b[0m"
    assert written == ["", said, said, f"{said}\n\x1b[93mthree\x1b[0m\x1b[92mfold\x1b[0m"]


def test_planned_that_took_plain_steps_alone_says_why_unasked(
    at: At, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(at.tmp / "cache"))
    monkeypatch.setattr(Measurement, "turn", lambda self: None)
    why = "planned: 5 plain steps; what other steps cost here is not known yet (0% measured)\n"
    assert run("generate", at.adapter, "Hi", "--layout", "planned", *SHORT).err == LOADED + why
    assert run("generate", at.adapter, "Hi", "--layout", "plain", *SHORT).err == LOADED, "it was asked for"
    said = run("generate", at.adapter, "Hi", "--layout", "planned", "--json", *SHORT)
    assert (said.err, one_object(said)["layouts"]) == (LOADED, {"plain": 5})
    assert one_object(said)["reason"] in why


def test_colours_that_cannot_be_shown_are_said(at: At, run: Run) -> None:
    for spelt in ("--colour", "--color"):
        said = run("generate", at.adapter, "Hi", spelt, "--layout", "plain", *SHORT)
        assert said.err == f"{LOADED}--colour shows no colours, for stdout is no terminal\n"


def test_planned_measures_nothing_for_what_is_refused(at: At, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(Measurement, "turn", lambda self: pytest.fail("it measured"))
    said = run("generate", at.adapter, "Hi", "--layout", "planned", "--masks", "4")
    assert (said.status, said.out) == (2, "")
    assert "4 masks were asked for and the adapter was trained with 3" in said.err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_opens_in_other_dtypes(at: At, run: Run, dtype: str) -> None:
    said = run("generate", at.adapter, "Say 3.", "--dtype", dtype, *SHORT)
    assert said.status == 0
    assert said.out.strip()


def test_a_base_without_a_chat_template_goes_on_with_text(at: At, run: Run) -> None:
    base = plain_base(at)
    assert run(*at.train(base=base)).status == 0
    said = run("generate", at.out, "Once upon a time", *SHORT)
    assert said.status == 0
    assert said.err.startswith(f"base: {base} in float32 on cpu\n")


def test_that_layers_are_compiled_is_said_before_it_takes_time(
    at: At, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(MaskModel, "compile_steps", lambda model, wanted: None)
    short = ("generate", at.adapter, "2+2", "--max-new-tokens", "2", "--layout", "plain")
    assert "compiling" not in run(*short).err
    assert "compiling decoder layers: up to a minute the first time" in run(*short, "--compile").err
