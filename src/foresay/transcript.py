"""An answer as text, step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from foresay.decoding.session import Step


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
    said: list[int] = []
    shown = ""
    for number, step in enumerate(steps, 1):
        said += step.tokens
        whole = tokenizer.decode(said, skip_special_tokens=True)
        known = not whole.endswith("�") or step is steps[-1]
        yield Said(number, whole[len(shown) :] if known else "", len(step.tokens), step.drafted, step.accepted)
        shown = whole if known else shown
