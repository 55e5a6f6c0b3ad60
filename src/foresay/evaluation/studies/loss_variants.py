"""A grid of our own: what is changed, one thing at a time, from where the cells start."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from foresay.evaluation.studies.inputs import tokens_per_step
from foresay.evaluation.studies.study import Cell, Figure, Lines, Point, Study, Subject, Verdict

START, MEAN = "start", "mean"
LOSSES_OF: dict[str, dict[str, Any]] = {
    "target label": {"target": "label"},
    "target base_argmax": {"target": "base_argmax"},
    "kl": {"hard_weight": 0.0, "kl_weight": 1.0},
    "tv": {"hard_weight": 0.0, "variation_weight": 1.0},
    "ce + kl": {"kl_weight": 1.0},
    "kl + tv": {"hard_weight": 0.0, "kl_weight": 1.0, "variation_weight": 1.0},
    "masks alike": {"position_weights": ()},
    "no consistency": {"consistency_weight": 0.0},
}
MTP_OF: dict[str, dict[str, Any]] = {
    "masks frozen": {"train_masks": False},
    "masks trained": {"train_masks": True},
    "sampler paper": {"sampler": "paper"},
    "sampler residual": {"sampler": "residual"},
}
DOMAINS = Figure("tokens-per-step", "Tokens per step, quadratic, all masks", "domain", "tokens per step")


def cells(start: Cell) -> list[Cell]:
    """The start, and every change that is one; anchors and steps are halved and doubled."""
    train = start.train
    changed = [
        *(replace(start, label=label, losses=replace(start.losses, **some)) for label, some in LOSSES_OF.items()),
        *(replace(start, label=label, mtp=replace(start.mtp, **some)) for label, some in MTP_OF.items()),
        *(replace(start, label=f"anchors {n}", train=replace(train, anchors=n)) for n in _around(train.anchors)),
        *(replace(start, label=f"steps {n}", train=replace(train, steps=n)) for n in _around(train.steps)),
    ]
    first = replace(start, label=START)
    return [first, *(cell for cell in changed if replace(cell, label=START) != first)]


def _around(number: int) -> tuple[int, ...]:
    """Half and twice as many; none for 0, which stands for all."""
    return tuple(dict.fromkeys((max(number // 2, 1), 2 * number))) if number else ()


def measure(subject: Subject) -> Iterator[Point]:
    """Tokens per step by domain."""
    rates = tokens_per_step(subject.model, subject.material, "quadratic", subject.cell.mtp.num_masks)
    for domain, rate in {**rates, MEAN: sum(rates.values()) / len(rates)}.items():
        yield Point(DOMAINS.name, subject.cell.label, domain, rate)


def verdict(figures: Mapping[str, Lines]) -> Verdict:
    """The best cell beside the start."""
    means = {label: line[MEAN] for label, line in figures[DOMAINS.name].items()}
    if START not in means:
        return Verdict("The start is not there yet.")
    best, start = max(means, key=lambda label: means[label].median), means[START]
    span = f"{start.least:.2f} to {start.most:.2f} over {start.seeds} seeds"
    return Verdict(f"Best is {best!r} with {means[best].median:.2f}; the start has {start.median:.2f} ({span}).")


LOSSES = Study("losses", cells, measure, (DOMAINS,), verdict, start="default")
