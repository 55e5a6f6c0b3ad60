"""Paper A's Fig. 1: how high does a mask rank the true token? BaseUnchanged, with masks, with masks and sampler.

True tokens are those of held-out text; the sampler is told the true token before, as in training.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from foresay.evaluation.studies.ablation import without_sampler
from foresay.evaluation.studies.study import Cell, Figure, Lines, Point, Study, Subject, Verdict
from foresay.models.masks.model import MaskModel
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.losses import chunks
from foresay.training.objectives.two_pass import mask_rows

UNTOUCHED, MASKS, SAMPLER = "untouched", "masks", "masks + sampler"
WITHIN = (1, 10, 100)
SHARES = Figure("within", "Masks that rank the true token so high, %", "within the best", "%", digits=1)
MEDIANS = Figure("median-rank", "Median rank of the true token", "mask", "rank", digits=0)


def cells(start: Cell) -> list[Cell]:
    """The paper's three columns."""
    bare = without_sampler(start)
    return [
        replace(bare, label=UNTOUCHED, variant="untouched"),
        replace(bare, label=MASKS),
        replace(start, label=SAMPLER),
    ]


@torch.no_grad()
def measure(subject: Subject) -> Iterator[Point]:
    """Ranks, 1 the best, of every held-out label."""
    core, cell = subject.model.mask_model, subject.cell
    ranks: dict[int, list[Tensor]] = defaultdict(list)
    for batch in subject.material.heldout_batches(cell.train, core.base.device):
        found, masks = true_ranks(core, batch, cell)
        for mask in range(core.config.num_masks):
            ranks[mask].append(found[masks == mask])
    whole = {mask: torch.cat(some) for mask, some in ranks.items()}
    everything = torch.cat(list(whole.values()))
    for most in WITHIN:
        yield Point(SHARES.name, cell.label, most, 100 * (everything <= most).double().mean().item())
    for mask, some in whole.items():
        if len(some):
            yield Point(MEDIANS.name, cell.label, mask + 1, some.median().item())


def true_ranks(core: MaskModel, batch: Batch, cell: Cell) -> tuple[Tensor, Tensor]:
    """(N,) int64 rank of the label after each mask row, and (N,) int64 which mask of its block it is, from 0."""
    cache, _ = core.keep(batch.ids)
    rows = mask_rows(batch, batch.anchors, core.config.num_masks, cell.losses)
    sequence, row = rows.live.nonzero().unbind(1)
    position = rows.places[sequence, row]
    labels, previous = batch.ids[sequence, position + 1], batch.ids[sequence, position]
    states = core.see_masks(rows.call, cache)[sequence, row]
    found = []
    for some in chunks(len(labels), core.base.vocabulary):
        logits = core.base.unembed(core.sample(previous[some], states[some]))
        found.append((logits > logits.gather(1, labels[some, None])).sum(-1) + 1)
    return torch.cat(found), rows.call.mask_indices()[row]


def verdict(figures: Mapping[str, Lines]) -> Verdict:
    """Shares of true tokens ranked first."""
    lines = figures[SHARES.name]
    shares = ", ".join(
        f"{label} {lines[label][1].median:.1f} %" for label in (UNTOUCHED, MASKS, SAMPLER) if label in lines
    )
    return Verdict(f"The true token is ranked first: {shares or 'nothing is there yet'}.")


GUESS = Study("guess", cells, measure, (SHARES, MEDIANS), verdict)
