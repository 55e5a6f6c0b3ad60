"""Tokens in colour, and what became of data."""

from collections.abc import Iterator, Sequence

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from foresay.decoding.detokenizer import transcript
from foresay.decoding.metrics import Tally
from foresay.decoding.steps import Step
from foresay.training.preview import Preview, Shown

COLOURS = ("bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "bright_blue", "bright_red")
"""Steps take them in turn; neighbours always differ."""


def coloured(tokenizer: PreTrainedTokenizerBase, steps: Sequence[Step]) -> Text:
    """An answer with the tokens of each step in one colour."""
    text = Text()
    for said in transcript(tokenizer, steps):
        text.append(said.text, style=colour_of(said.step - 1))
    return text


def colour_of(step: int) -> str:
    """The colour of step 0, 1, ..."""
    return COLOURS[step % len(COLOURS)]


def tally_line(counted: Tally) -> str:
    """What some answers took, in a line."""
    found = f", {counted.looked_up_accepted} of {counted.looked_up} from prompt lookup" if counted.looked_up else ""
    return (
        f"{counted.tokens} tokens in {counted.steps} steps: {counted.tokens_per_step:.2f} tokens per step; "
        f"{counted.accepted} of {counted.drafted} drafts accepted{found}"
    )


def planned_line(counted: Tally, reason: str) -> str:
    """Which layouts `planned` took, and why, in a line."""
    taken = ", ".join(f"{steps} {layout}" for layout, steps in counted.layouts.items())
    return f"planned: {taken or 'no'} steps; {reason}"


def loss_text(tokenizer: PreTrainedTokenizerBase, shown: Shown) -> Text:
    """A training example: what carries loss green in ⟦ ⟧, ▾ after the tokens that a block hangs on."""
    text, anchors = Text(), set(shown.anchors)
    answer = shown.example.answer
    for place, token in enumerate(shown.example.ids):
        style = "green" if answer[place] else "dim"
        if answer[place] and not (place and answer[place - 1]):
            text.append("⟦", style="bold")
        word = tokenizer.decode([token]).replace("\n", "⏎\n")
        text.append(word, style=f"{style} underline" if place in anchors else style)
        if place in anchors:
            text.append("▾", style="bold yellow")
        if answer[place] and not any(answer[place + 1 : place + 2]):
            text.append("⟧", style="bold")
    return text


def preview_lines(seen: Preview) -> Iterator[str]:
    """The statistics of a preview, and what its marks mean."""
    if seen.shown:
        yield "⟦green⟧ carries loss; a block of masks hangs after every ▾ (anchors are drawn anew in each epoch)"
    for report in seen.reports:
        yield report.sentence
        yield from (f"  bad: {complaint}" for complaint in report.complaints[1:])
    yield "sequence length in tokens: " + ", ".join(f"{name} {tokens}" for name, tokens in seen.lengths.items())
    if set(seen.domains) != {""}:
        yield "sequences by domain: " + ", ".join(f"{name or '(none)'} {n}" for name, n in seen.domains.items())
