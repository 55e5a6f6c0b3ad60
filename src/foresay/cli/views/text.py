"""Tokens in colour, and what became of data."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from foresay.cli.terminal import OUT, can_write
from foresay.cli.views.word_wrap import WordWrap
from foresay.decoding.detokenizer import Detokenizer, transcript
from foresay.decoding.metrics import Tally
from foresay.decoding.steps import Step
from foresay.training.distillation.distill import Distilled
from foresay.training.preview import Preview, Shown

COLOURS = ("bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "bright_blue", "bright_red")
"""Steps take them in turn; neighbours always differ."""
FACT_COLUMNS = 79


def coloured(tokenizer: PreTrainedTokenizerBase, steps: Sequence[Step]) -> Text:
    """An answer with the tokens of each step in one colour."""
    text = Text()
    for said in transcript(tokenizer, steps):
        text.append(said.text, style=colour_of(said.step - 1))
    return text


def colour_of(step: int) -> str:
    """The colour of step 0, 1, ..."""
    return COLOURS[step % len(COLOURS)]


class AnswerStream:
    """Writes an answer to stdout as it grows, whole characters at a time; in colour, each step in the next one.

    On a terminal, whole words at a time: lines are broken between them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, colour: bool = False) -> None:
        self._detokenizer, self._colour = Detokenizer(tokenizer), colour
        self._wrap = WordWrap(OUT.width) if OUT.is_terminal else None
        self.steps = 0

    def tell(self, index: int, step: Step) -> None:
        """Write what a step added."""
        self._write(self._detokenizer.add(step.tokens))
        self.steps += 1

    def end(self) -> None:
        """Write what is left, and end the line."""
        self._write(self._detokenizer.rest())
        for piece, step in self._wrap.rest() if self._wrap else ():
            self._put(piece, step)
        print(flush=True)

    def _write(self, text: str) -> None:
        for piece, step in self._wrap.add(text, self.steps) if self._wrap else [(text, self.steps)]:
            self._put(piece, step)

    def _put(self, text: str, step: int) -> None:
        if self._colour:
            # A piece of a line: rich does not know where it begins.
            OUT.print(text, style=colour_of(step), end="", highlight=False, soft_wrap=True)
        else:
            print(text, end="", flush=True)


def tally_line(counted: Tally) -> str:
    """What some answers took, in a line."""
    found = f", {counted.looked_up_accepted} of {counted.looked_up} from prompt lookup" if counted.looked_up else ""
    return (
        f"{counted.tokens} tokens in {counted.steps} steps: {counted.tokens_per_step:.2f} tokens per step; "
        f"{counted.accepted} of {counted.drafted} drafts accepted{found}"
    )


def only_plain(counted: Tally) -> bool:
    """Whether every step was a plain one, so that nothing was gained."""
    return set(counted.layouts) == {"plain"}


def facts_text(facts: Mapping[str, str]) -> Text:
    """Names and what they are, one below the other, wrapped within a terminal of 80 columns."""
    column = max(map(len, facts)) + 2
    text = Text()
    for name, fact in facts.items():
        lines = textwrap.wrap(fact, FACT_COLUMNS - column, break_on_hyphens=False, break_long_words=False)
        text.append(f"{name:{column}}", style="bold").append(f"\n{' ' * column}".join(lines) + "\n")
    text.rstrip()
    return text


def planned_line(counted: Tally, reason: str) -> str:
    """Which layouts `planned` took, and why, in a line."""
    taken = ", ".join(f"{steps} {layout}" for layout, steps in counted.layouts.items())
    return f"planned: {taken or 'no'} steps; {reason}"


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands around tokens that carry loss, after those that a block belongs to, and for a new line."""

    opens: str = "⟦"
    closes: str = "⟧"
    block: str = "▾"
    line: str = "⏎"

    @classmethod
    def of(cls, encoding: str) -> "Marks":
        """Those that a terminal or file of this encoding can hold."""
        return cls() if can_write("⟦⟧▾⏎", encoding) else cls("[[", "]]", "^", "\\n")


def loss_text(tokenizer: PreTrainedTokenizerBase, shown: Shown, marks: Marks) -> Text:
    """A training example: what carries loss green and in brackets, a mark after the tokens that a block belongs to."""
    text, anchors = Text(), set(shown.anchors)
    answer = shown.example.answer
    for place, token in enumerate(shown.example.ids):
        style = "green" if answer[place] else "dim"
        if answer[place] and not (place and answer[place - 1]):
            text.append(marks.opens, style="bold")
        word = tokenizer.decode([token]).replace("\n", f"{marks.line}\n")
        text.append(word, style=f"{style} underline" if place in anchors else style)
        if place in anchors:
            text.append(marks.block, style="bold yellow")
        if answer[place] and not any(answer[place + 1 : place + 2]):
            text.append(marks.closes, style="bold")
    return text


def preview_lines(seen: Preview, marks: Marks) -> Iterator[str]:
    """The statistics of a preview, and what its marks mean."""
    if seen.shown:
        yield (
            f"{marks.opens}green{marks.closes} carries loss; a block of masks follows every {marks.block} (anchors "
            "are drawn anew in each epoch)"
        )
    for report in seen.reports:
        yield report.sentence
        yield from (f"  bad: {complaint}" for complaint in report.complaints[1:])
    yield "sequence length in tokens: " + ", ".join(f"{name} {tokens}" for name, tokens in seen.lengths.items())
    if set(seen.domains) != {""}:
        yield "sequences by domain: " + ", ".join(f"{name or '(none)'} {n}" for name, n in seen.domains.items())


def distilled_lines(done: Distilled) -> Iterator[str]:
    """What of the rows was not used, by name, and the first bad rows."""
    if done.unread:
        yield "not used: " + ", ".join(f"{name} ({count} rows)" for name, count in sorted(done.unread.items()))
    yield from (f"  bad: {complaint}" for complaint in done.complaints)
