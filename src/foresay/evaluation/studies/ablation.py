"""Paper A's Fig. 7: what each part adds to the tokens of a step, for 1..k masks.

Three adapters serve four rungs, since linear and quadratic are ways to decode:
`bare` has no sampler and no consistency loss, and is decoded linearly (the paper's first row), then quadratically;
`sampler` has the sampler head and its loss too; `full` has the consistency loss too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from foresay.decoding.config import FixedLayout
from foresay.evaluation.studies.inputs import tokens_per_step
from foresay.evaluation.studies.study import Cell, Figure, Lines, Point, Study, Subject, Verdict

RUNGS: dict[str, tuple[tuple[str, FixedLayout], ...]] = {
    "bare": (("linear", "linear"), ("+ quadratic", "quadratic")),
    "sampler": (("+ sampler", "quadratic"),),
    "full": (("+ consistency", "quadratic"),),
}
"""Rungs that a cell is measured for, from the lowest up, with the layout of each."""
ORDER = [rung for rungs in RUNGS.values() for rung, _ in rungs]
PAPER_MASKS, PAPER_RATIO = 8, 1.52
"""Highest over lowest rung in the paper (3.37 / 2.21)."""
TOKENS = Figure("tokens-per-step", "Tokens per step, mean of the domains", "masks", "tokens per step")


def without_sampler(cell: Cell) -> Cell:
    """The same training with neither sampler head nor its loss: drafts come from the base head alone."""
    return replace(cell, mtp=replace(cell.mtp, sampler="none"), losses=replace(cell.losses, sampler_weight=0.0))


def cells(start: Cell) -> list[Cell]:
    """The three trainings."""
    sampler = replace(start, label="sampler", losses=replace(start.losses, consistency_weight=0.0))
    return [replace(without_sampler(sampler), label="bare"), sampler, replace(start, label="full")]


def by_masks(subject: Subject, line: str, layout: FixedLayout) -> Iterator[Point]:
    """Tokens per step for 1..k masks."""
    for masks in range(1, subject.cell.mtp.num_masks + 1):
        for domain, rate in tokens_per_step(subject.model, subject.material, layout, masks).items():
            yield Point(TOKENS.name, line, masks, rate, domain)


def measure(subject: Subject) -> Iterator[Point]:
    """Every rung that the cell serves."""
    for rung, layout in RUNGS[subject.cell.label]:
        yield from by_masks(subject, rung, layout)


def verdict(figures: Mapping[str, Lines]) -> Verdict:
    """Is the order the paper's, and how far apart are the ends?"""
    lines = figures[TOKENS.name]
    if missing := [rung for rung in ORDER if rung not in lines]:
        return Verdict(f"The order of the ladder is open: {', '.join(missing)} missing.")
    masks = max(x for x in lines[ORDER[0]] if isinstance(x, int))
    rates = {rung: lines[rung][masks].median for rung in ORDER}
    rising = sorted(rates, key=lambda rung: rates[rung]) == ORDER
    said = ", ".join(f"{rung} {rate:.2f}" for rung, rate in rates.items())
    paper = f" (paper A: {PAPER_RATIO})" if masks == PAPER_MASKS else ""
    order = "the paper's order" if rising else "not the paper's order"
    ratio = rates[ORDER[-1]] / rates[ORDER[0]]
    return Verdict(f"At {masks} masks: {said}: {order}; highest over lowest {ratio:.2f}{paper}.")


LADDER = Study("ladder", cells, measure, (TOKENS,), verdict)
