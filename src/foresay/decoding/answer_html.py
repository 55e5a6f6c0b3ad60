"""An answer as a notebook shows it: the tokens of each step on one colour."""

from collections.abc import Iterable
from html import escape

from foresay.decoding.detokenizer import StepText

COLOURS = ("86, 180, 233", "230, 159, 0", "0, 158, 115", "204, 121, 167", "240, 228, 66", "213, 94, 0")
"""Red, green, blue; told apart by colour-blind eyes too (Okabe and Ito). Neighbouring steps always differ."""


def answer_html(steps: Iterable[StepText], summary: str) -> str:
    """The texts of the steps with what became of their drafts under the pointer, and a line below.

    Backgrounds are half transparent and the text keeps its colour, so that dark notebooks show it too.
    """
    spans = "".join(_span(step) for step in steps)
    return f'<div style="white-space: pre-wrap">{spans}</div><div style="opacity: 0.7">{escape(summary)}</div>'


def _span(step: StepText) -> str:
    colour = COLOURS[(step.step - 1) % len(COLOURS)]
    tokens = f"{step.tokens} token{'' if step.tokens == 1 else 's'}"
    told = f"step {step.step}: {tokens}, {step.accepted} of {step.drafted} drafts kept"
    return f'<span style="background: rgba({colour}, 0.4)" title="{told}">{escape(step.text)}</span>'
