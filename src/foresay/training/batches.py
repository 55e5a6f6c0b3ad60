"""Which sequences and which anchors a step takes: a pure function of seed and step."""

from collections.abc import Iterator, Sequence

import torch

from foresay.config import TrainConfig
from foresay.training.data import Example
from foresay.training.two_pass import Batch

POOL = 16
"""Batches that are sorted by length together, to pad little."""


def batches(examples: Sequence[Example], config: TrainConfig, device: torch.device) -> Iterator[Batch]:
    """Endless batches: every epoch in a new order, sequences of like length together, anchors drawn anew."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for pool in _chunks(order, POOL * config.sequences):
            pool.sort(key=lambda index: len(examples[index].ids))
            groups = list(_chunks(pool, config.sequences))
            for group in torch.randperm(len(groups), generator=generator).tolist():
                yield collate([examples[index] for index in groups[group]], config.anchors, generator, device)


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def collate(examples: Sequence[Example], anchors: int, generator: torch.Generator, device: torch.device) -> Batch:
    """Pad the examples behind and draw `anchors` of each (0: take every row that carries loss)."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.int64)
    carries = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        carries[row, : len(example.ids)] = torch.tensor(example.carries)
    # A random key for each row that carries loss; the largest keys win, and rows without loss come last.
    keys = torch.rand(carries.shape, generator=generator).masked_fill(~carries, -1.0)
    most = min(anchors or longest, max(int(carries.sum(1).max()), 1))
    best = keys.topk(most, dim=1)
    drawn = torch.where(best.values < 0, -1, best.indices).sort(dim=1).values
    return Batch(ids.to(device), carries.to(device), drawn.to(device))
