"""What decoding gives back: its steps, and the whole of an answer."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward of the base gave one sequence."""

    tokens: tuple[int, ...]
    """Kept tokens, the stop token included; cut at the stop and at the maximum."""
    drafted: int
    """Drafts that were verified."""
    accepted: int
    """Drafts among the kept tokens."""
    depth: int
    """Most drafts that could have stayed: `drafted` in a chain, fewer where drafts branch."""
    looked_up: int = 0
    """Drafts that a prompt lookup found: all of the step, or none."""
    layout: str = ""
    """Its layout by name (`Entry.label`); empty where it read the prompt."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The answer to one prompt, step by step."""

    steps: tuple[Step, ...]
    ended: Literal["stop", "length"]
    """By a stop token, or by `max_new_tokens` or the context."""

    @property
    def tokens(self) -> list[int]:
        """All kept tokens."""
        return [token for step in self.steps for token in step.tokens]
