"""What a study is: cells, which are trained; points, which are measured on them; figures, which points are drawn in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from foresay.evaluation.studies.inputs import StudyInputs
from foresay.foundation.errors import require
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop.progress import Progress

Start = Literal["paper", "default"]
Variant = Literal["gated", "standard", "untouched"]
STARTS: dict[Start, tuple[MTPConfig, LossConfig]] = {
    "paper": (
        MTPConfig(rank=128, lora_targets=("all",), sampler="paper", train_masks=False),
        LossConfig(target="label", real_rows=True, position_weights=()),
    ),
    "default": (MTPConfig(), LossConfig()),
}
"""What the cells of a study differ from: paper A's adapter and losses, or our defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training, but for its seed."""

    label: str
    mtp: MTPConfig
    losses: LossConfig
    train: TrainConfig
    variant: Variant = "gated"
    """LoRA acts on mask rows only (`gated`) or on every row (`standard`, trained in one pass); `untouched` is not
    trained at all, and its masks are the base's own token `-`."""

    def __post_init__(self) -> None:
        chunked = self.variant == "standard" and self.train.chunk_anchors > 0
        require(not chunked, "standard LoRA trains in one pass, which has no chunks; leave --chunk-anchors at 0")


@dataclass(frozen=True, slots=True)
class Point:
    """One measured number."""

    figure: str
    line: str
    x: int | str
    value: float
    domain: str = ""
    """Points of several domains are averaged, one weight for each domain."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a cell's model after some step."""

    cell: Cell
    model: MultiTokenModel
    material: StudyInputs
    progress: Progress


@dataclass(frozen=True, slots=True)
class Figure:
    """What a picture, or a table, of a study shows."""

    name: str
    title: str
    x: str
    """What stands along the bottom."""
    y: str
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Spread:
    """One place of a line over the seeds."""

    median: float
    least: float
    most: float
    seeds: int


Lines = Mapping[str, Mapping[int | str, Spread]]
"""The lines of a figure, by label, then by x."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a study says."""

    sentence: str
    holds: bool = True
    """False where something that must hold does not."""


@dataclass(frozen=True, slots=True)
class Study:
    """A named grid."""

    name: str
    cells: Callable[[Cell], list[Cell]]
    """The cells, from the one that they all start from."""
    measure: Callable[[Subject], Iterator[Point]]
    figures: tuple[Figure, ...]
    verdict: Callable[[Mapping[str, Lines]], Verdict]
    """From the lines of each figure, some of which may be missing."""
    start: Start = "paper"
    moments: int = field(default=0)
    """Times that a cell is measured before the end of its training, the beginning included."""
