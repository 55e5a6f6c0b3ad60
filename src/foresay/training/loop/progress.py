"""How far a run is."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Losses:
    """Loss parts of a step, as floats, each already divided by its denominator and not yet weighted."""

    base: float = 0.0
    sampler: float = 0.0
    consistency: float = 0.0
    total: float = 0.0
    rows: float = 0.0
    """Mask rows that paid them."""

    def add(self, other: "Losses") -> None:
        """Add the parts of another chunk."""
        self.base += other.base
        self.sampler += other.sampler
        self.consistency += other.consistency
        self.total += other.total
        self.rows += other.rows


@dataclass(frozen=True, slots=True)
class Progress:
    """State of the run after a step; the defaults are its beginning."""

    step: int = 0
    losses: Losses = field(default_factory=Losses)
    learning_rate: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0
    """Spent so far, watchers included."""
    step_seconds: float = 0.0
    """Spent on this step alone."""

    @property
    def rows_per_second(self) -> float:
        """Mask rows that this step trained on, over its time."""
        return self.losses.rows / self.step_seconds if self.step_seconds else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """What every trainer is logged with, by name."""
        return {"learning_rate": self.learning_rate, "gradient_norm": self.gradient_norm}

    @classmethod
    def read(cls, said: dict[str, Any]) -> "Progress":
        """From `asdict` through JSON, which keeps every digit."""
        return cls(**said | {"losses": Losses(**said["losses"])})
