"""What the sampler head adds to the base head, mask by mask, in one adapter.

    python benchmarks/heads_by_mask.py ADAPTER --data answers.jsonl > heads-by-mask.json

Masks after every token of the answers, which no adapter should have been trained on. For either head: the share of
masks whose best token is the answer's, and the tokens that a step of quadratic decoding would keep, which is one and
the masks before the first wrong one. The sampler head is told the true token before, as it is wherever a draft counts,
and then another row's, to see how much it listens.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
import tyro
from torch import Tensor

from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.config import DTYPE, LoadDType, MTPConfig
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.objectives.batches import Batch, collate
from foresay.training.objectives.losses import chunks
from foresay.training.objectives.two_pass import mask_rows
from foresay.training.recipe import Recipe
from foresay.training.train import read_parts

TOGETHER = 4
"""Answers in a batch."""
Right = dict[str, Tensor]
"""By head: (A, k) bool, blocks that are whole, and whether their masks are right."""


@torch.no_grad()
def right(core: MaskModel, batch: Batch) -> Right:
    """Whether the best token is the label, by head; blocks that reach past the answer are left out."""
    masks = core.config.num_masks
    cache, _ = core.keep(batch.ids, batch.documents)
    rows = mask_rows(batch, batch.anchors, masks, LossConfig())
    whole = rows.live.view(len(batch.ids), -1, masks).all(-1)
    states = core.see_masks(rows.call, cache).view(*whole.shape, masks, -1)[whole].flatten(0, 1)
    places = rows.places.view(*whole.shape, masks)[whole]
    sequence = whole.nonzero()[:, :1].expand_as(places)
    labels, true = batch.ids[sequence, places + 1].flatten(), batch.ids[sequence, places].flatten()
    told = {"base head": None, "sampler head": true, "sampler head, wrong token": true.roll(masks * 7 + 1)}
    return {name: (best(core, states, before) == labels).view(-1, masks) for name, before in told.items()}


def best(core: MaskModel, states: Tensor, before: Tensor | None) -> Tensor:
    """(N,) best token of the base head, or of the sampler head that is told the tokens `before` (N,)."""
    found = []
    for some in chunks(len(states), core.base.vocabulary):
        own = states[some] if before is None else core.sample(before[some], states[some])
        found.append(core.base.unembed(own).argmax(-1))
    return torch.cat(found)


def main(model: str, data: Path, dtype: LoadDType = DTYPE, most: int = 0) -> None:
    """Print JSON.

    Args:
        model: Folder of an adapter with masks, smollm2 or nano.
        data: Answers that it was not trained on.
        dtype: Dtype of the base.
        most: Most answers read; 0: all.
    """
    own = MultiTokenModel.from_pretrained(model, dtype=dtype)
    recipe = Recipe(own.base_name, (data,), Path(), MTPConfig())
    examples = [example for part in read_parts(recipe, own) for example in part.examples][: most or None]
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(examples), TOGETHER):
        batch = collate(examples[start : start + TOGETHER], 0, torch.Generator(), own.base.device)
        for head, some in right(own.mask_model, batch).items():
            found.setdefault(head, []).append(some.double())
    summary = {head: summed(torch.cat(some)) for head, some in found.items()}
    said = {"model": model, "config": asdict(own.mask_model.config), "answers": len(examples)}
    print(json.dumps(said | {"heads": summary, "provenance": provenance(data=data.name, dtype=dtype)}, indent=1))


def summed(right: Tensor) -> dict[str, int | float | list[float]]:
    """Of (A, k) masks that are right, 0 or 1."""
    kept = right.cumprod(-1)
    return {
        "blocks": len(right),
        "right": [round(share, 4) for share in right.mean(0).tolist()],
        "right_with_all_before": [round(share, 4) for share in kept.mean(0).tolist()],
        "tokens_per_step": round(1 + kept.sum(-1).mean().item(), 4),
    }


if __name__ == "__main__":
    tyro.cli(main)
