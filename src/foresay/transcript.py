"""An answer as text, step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from foresay.decoding.session import Step
from foresay.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Said:
    """What one step added to the text."""

    step: int
    """Counted from 1."""
    text: str
    tokens: int
    drafted: int
    accepted: int


def transcript(tokenizer: PreTrainedTokenizerBase, steps: Sequence[Step]) -> Iterator[Said]:
    """The text of each step. A token may be part of a character; it shows with the step that completes it."""
    detokenizer = Detokenizer(tokenizer)
    for number, step in enumerate(steps, 1):
        text = detokenizer.add(step.tokens) + (detokenizer.rest() if number == len(steps) else "")
        yield Said(number, text, len(step.tokens), step.drafted, step.accepted)
