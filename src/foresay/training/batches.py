"""Which sequences and which anchors a step takes: a pure function of seed and step."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from foresay.config import TrainConfig
from foresay.training.data import Example
from foresay.training.two_pass import Batch

T = TypeVar("T")
POOL = 16
"""Batches of examples that are sorted by length, or packed, together, to pad little."""


def batches(examples: Sequence[Example], config: TrainConfig, device: torch.device) -> Iterator[Batch]:
    """Endless batches: every epoch in a new order, anchors drawn anew.

    Sequences of like length stand together, or hold several examples each (`pack`).
    """
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for group in (_packed if config.pack else _of_like_length)(examples, order, config, generator):
            sequences = [[examples[index] for index in sequence] for sequence in group]
            yield collate_packed(sequences, config.anchors, generator, device)


def _of_like_length(
    examples: Sequence[Example], order: list[int], config: TrainConfig, generator: torch.Generator
) -> Iterator[list[list[int]]]:
    for pool in _chunks(order, POOL * config.sequences):
        pool.sort(key=lambda index: len(examples[index].ids))
        groups = list(_chunks([[index] for index in pool], config.sequences))
        yield from _shuffled(groups, generator)


def _packed(
    examples: Sequence[Example], order: list[int], config: TrainConfig, generator: torch.Generator
) -> Iterator[list[list[int]]]:
    waiting: list[list[int]] = []
    for pool in _chunks(order, POOL * config.sequences):
        lengths = {index: len(examples[index].ids) for index in pool}
        waiting += _shuffled(pack(lengths, config.max_length), generator)
        whole = len(waiting) // config.sequences * config.sequences
        yield from _chunks(waiting[:whole], config.sequences)
        waiting = waiting[whole:]
    if waiting:
        yield waiting


def pack(lengths: dict[int, int], room: int) -> list[list[int]]:
    """Keys in groups whose lengths fill `room` at most, by first-fit decreasing; a longer one stands alone."""
    groups: list[list[int]] = []
    left: list[int] = []
    for key in sorted(lengths, key=lambda key: -lengths[key]):
        place = next((place for place, room in enumerate(left) if room >= lengths[key]), len(groups))
        if place == len(groups):
            groups.append([])
            left.append(room)
        groups[place].append(key)
        left[place] -= lengths[key]
    return groups


def _shuffled(groups: list[T], generator: torch.Generator) -> list[T]:
    return [groups[place] for place in torch.randperm(len(groups), generator=generator).tolist()]


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def collate(examples: Sequence[Example], anchors: int, generator: torch.Generator, device: torch.device) -> Batch:
    """An example a sequence, padded behind, and `anchors` drawn of each (0: take every row that carries loss)."""
    return collate_packed([[example] for example in examples], anchors, generator, device)


def collate_packed(
    sequences: Sequence[Sequence[Example]], anchors: int, generator: torch.Generator, device: torch.device
) -> Batch:
    """As `collate`, with several examples side by side in a sequence."""
    longest = max(sum(len(example.ids) for example in sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    carries = torch.zeros(ids.shape, dtype=torch.bool)
    # Padding is a document in every row: it takes no position that a token does not take.
    starts = torch.arange(longest).repeat(len(sequences), 1)
    drawn = []
    for row, sequence in enumerate(sequences):
        start, own = 0, []
        for example in sequence:
            there = slice(start, start + len(example.ids))
            ids[row, there] = torch.tensor(example.ids)
            carries[row, there] = torch.tensor(example.carries)
            starts[row, there] = start
            own.append(start + _draw(example, anchors, generator))
            start = there.stop
        drawn.append(torch.cat(own))
    standing = pad_sequence(drawn, batch_first=True, padding_value=-1, padding_side="left")
    return Batch(ids.to(device), carries.to(device), standing.to(device), starts=starts.to(device))


def _draw(example: Example, anchors: int, generator: torch.Generator) -> Tensor:
    """Rows of the example that carry a block, ascending."""
    carrying = torch.tensor(example.carries).nonzero()[:, 0]
    chosen = torch.randperm(len(carrying), generator=generator)[: anchors or len(carrying)]
    return carrying[chosen.sort().values]
