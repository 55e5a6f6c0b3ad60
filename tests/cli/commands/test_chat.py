"""`foresay chat`: what was said stands before what is said next, and Ctrl-C stops the answer alone."""

import io
import os
import pty
import subprocess
import sys

import pytest

from foresay.cli import main as cli
from foresay.data.chat import template_ids
from foresay.decoding.config import DecodeConfig
from foresay.decoding.steps import Step
from foresay.foundation.errors import PromptError
from foresay.model import MultiTokenModel
from foresay.serving.conversation import Conversation
from foresay.serving.rules import Rules

DECODE = DecodeConfig(layout="quadratic", masks=3, max_new_tokens=24)


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


def chat(lines: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    settings = ("--layout", "quadratic", "--masks", "3", "--max-new-tokens", "24", *options)
    return cli.main(["chat", "nano", *settings])


def test_a_conversation_goes_on_from_what_was_said(model: MultiTokenModel) -> None:
    talk = Conversation(model, DECODE, Rules())
    talk.prepare()
    first = talk.ask("Tom has 3 apples.", lambda step: None)
    second = talk.ask("And Ann?", lambda step: None)
    tokenizer = model.require_tokenizer()
    answer = tokenizer.decode(first.tokens, skip_special_tokens=True)
    turns = [("user", "Tom has 3 apples."), ("assistant", answer), ("user", "And Ann?")]
    ids = template_ids(tokenizer, [{"role": role, "content": text} for role, text in turns], prompt=True)
    assert second.tokens == model.decode([ids], DECODE)[0].tokens
    assert talk.count().tokens == len(first.tokens) + len(second.tokens)
    talk.reset()
    assert talk.ask("Tom has 3 apples.", lambda step: None).tokens == first.tokens


def test_what_the_system_is_told_stands_before_all_that_is_said(model: MultiTokenModel) -> None:
    """nano's own template has no place for it: it would say the words itself."""
    talk = Conversation(model, DECODE, Rules())
    with pytest.raises(PromptError, match="has no place for a system message"):
        talk.instruct("Be brief.")
    assert talk.system == ""
    tokenizer = model.require_tokenizer()
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        talk.instruct("Be brief.")
        said = talk.ask("Tom has 3 apples.", lambda step: None)
        told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tom has 3 apples."}]
        assert said.tokens == model.decode([template_ids(tokenizer, told, prompt=True)], DECODE)[0].tokens
        assert said.tokens != model.decode([template_ids(tokenizer, told[1:], prompt=True)], DECODE)[0].tokens
        talk.reset()
        assert talk.system == "Be brief."
    finally:
        tokenizer.chat_template = own


def test_commands_of_a_chat_are_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("/system Be brief.\n/system\n/reset\n/nope x\n/reset now\n/help\n", monkeypatch) == 0
    told = capsys.readouterr().err
    assert "/reset takes no words after it; write it alone" in told
    for words in ("has no place for a system", "system: none", "is forgotten", "there is no /nope", "/quit ends"):
        assert words in told


def test_a_line_is_edited_and_an_earlier_one_comes_back() -> None:
    """In a terminal: backspace mends, the arrow up brings the line before."""
    pytest.importorskip("readline")
    code = "from foresay.cli.terminal import read_line\nprint([read_line(), read_line()])"
    main, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        _until(main, b"> ")
        os.write(main, b"helo\x7flo\n")
        _until(main, b"> ")
        os.write(main, b"\x1b[A!\n")
        shown = _until(main, b"']")
        process.wait()
    os.close(main)
    assert b"['hello', 'hello!']" in shown


def _until(terminal: int, sign: bytes) -> bytes:
    shown = b""
    while sign not in shown:
        shown += os.read(terminal, 1024)
    return shown


def test_an_interrupted_answer_stays_as_far_as_it_came(model: MultiTokenModel) -> None:
    talk, seen = Conversation(model, DECODE, Rules()), list[Step]()

    def interrupt(step: Step) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk.ask("Tom has 3 apples.", interrupt)
    text = model.require_tokenizer().decode([token for step in seen for token in step.tokens])
    assert talk.messages[-1] == {"role": "assistant", "content": text}
    assert talk.ask("Go on.", lambda step: None).tokens


def test_a_chat_past_the_context_is_refused_and_forgotten(model: MultiTokenModel) -> None:
    talk = Conversation(model, DECODE, Rules())
    with pytest.raises(PromptError, match="the base's context is 1024"):
        talk.ask("long " * 3000, lambda step: None)
    assert talk.messages == []


def test_the_verb_answers_counts_and_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    question = "Tom has 3 apples."
    assert chat(f"{question}\n/stats\n/reset\n{question}\n/dance\n\n", monkeypatch) == 0
    shown = capsys.readouterr()
    answers = shown.out.strip().split("\n")
    assert answers[: len(answers) // 2] == answers[len(answers) // 2 :], "after a reset the same is said again"
    assert "drafts accepted" in shown.err
    assert "tokens per step" in shown.err
    assert "there is no /dance" in shown.err


def test_a_line_that_is_not_utf8_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat("Tom \udcff\n日本 🙂\n/stats\n", monkeypatch) == 0
    shown = capsys.readouterr().err
    assert shown.count("this line is not UTF-8") == 1
    assert "drafts accepted" in shown


def test_ctrl_c_stops_the_answer_not_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask, calls = Conversation.ask, []

    def interrupted(self: Conversation, text: str, watch: object) -> object:
        calls.append(text)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return ask(self, text, watch)  # type: ignore[arg-type]

    monkeypatch.setattr(Conversation, "ask", interrupted)
    assert chat("One.\nTwo.\n/quit\nThree.\n", monkeypatch) == 0
    assert calls == ["One.", "Two."]
    assert "stopped; 0 tokens" in capsys.readouterr().err
