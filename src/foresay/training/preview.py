"""The verb `data preview`: what training would see, before it does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from foresay.data.corpus import Report, encoded
from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.source import Source
from foresay.training.objectives.batches import collate


@dataclass(frozen=True, slots=True)
class Shown:
    """One example as training would take it."""

    example: Example
    anchors: tuple[int, ...]
    """Tokens that a block would follow, by a first draw."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What came out of some sources."""

    reports: tuple[Report, ...]
    lengths: dict[str, int]
    """Median, 90th percentile and maximum, in tokens."""
    domains: dict[str, int]
    """Sequences by domain."""
    shown: tuple[Shown, ...]


def preview(sources: Sequence[Source], encoder: Encoder, anchors: int, most: int, strict: bool = False) -> Preview:
    """Read the sources without the cache, and show the first `most` examples of each.

    Raises DataError, MaskError, as training would.
    """
    reports, shown = [], []
    lengths: list[int] = []
    domains: Counter[str] = Counter()
    for source in sources:
        report = Report(source.name, encoder.method)
        for number, example in enumerate(encoded(source, encoder, report, strict)):
            lengths.append(len(example.ids))
            domains[example.domain] += 1
            if number < most:
                shown.append(Shown(example, draw(example, anchors)))
        report.check(encoder.max_length)
        reports.append(report)
    quantiles = np.quantile(lengths, (0.5, 0.9, 1.0), method="nearest").astype(int).tolist()
    return Preview(tuple(reports), dict(zip(("median", "p90", "longest"), quantiles)), dict(domains), tuple(shown))


def draw(example: Example, anchors: int) -> tuple[int, ...]:
    """Anchors of an example, as a training step draws them."""
    batch = collate([example], anchors, torch.Generator().manual_seed(0), torch.device("cpu"))
    return tuple(anchor for anchor in batch.anchors[0].tolist() if anchor >= 0)


def limited(source: Source, rows: int) -> Source:
    """The source, with at most `rows` rows (0: as it is)."""
    return replace(source, rows=min(source.rows or rows, rows)) if rows else source
