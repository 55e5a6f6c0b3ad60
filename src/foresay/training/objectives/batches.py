"""Which sequences and which anchors a step takes: a pure function of seed and step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from foresay.data.example import Example
from foresay.models.layout.documents import Documents
from foresay.training.config import TrainConfig
from foresay.training.loop.distributed import Ranks


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of a step and the anchors whose blocks it processes."""

    ids: Tensor
    """(B, R) int64, padded on the right."""
    carries: Tensor
    """(B, R) bool: row t predicts a token that carries loss (the last prompt token does, the last token never)."""
    anchors: Tensor
    """(B, A) int64: rows that carry a block, -1 for none."""
    masks: int = 0
    """Masks in a block, at most the model's k; 0 for all of them."""
    own: slice = field(default_factory=lambda: slice(None), hash=False)
    """Sequences that this process runs; the others are only counted."""
    starts: Tensor | None = None
    """(B, R) int64: first row of the document that a row belongs to; None: one document a sequence."""

    @property
    def documents(self) -> Documents:
        """Where documents begin."""
        return Documents(torch.zeros_like(self.ids) if self.starts is None else self.starts)

    def mine(self) -> "Batch":
        """The own sequences alone."""
        ids, carries, anchors, starts = (
            tensor[self.own] for tensor in (self.ids, self.carries, self.anchors, self.documents.starts)
        )
        return replace(self, ids=ids, carries=carries, anchors=anchors, starts=starts)


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
    """An example a sequence, padded on the right, and `anchors` drawn of each (0: take every row that carries loss)."""
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


def share(batch: Batch, ranks: Ranks) -> Batch:
    """The global batch with the sequences that are this process's own, as many as everyone's.

    Where they do not divide, empty ones are appended: a sharded base needs every process in every call.
    """
    if ranks.world == 1:
        return batch
    own = -(-len(batch.ids) // ranks.world)
    missing = own * ranks.world - len(batch.ids)
    return replace(
        batch,
        ids=_more_rows(batch.ids, missing, 0),
        carries=_more_rows(batch.carries, missing, False),
        anchors=_more_rows(batch.anchors, missing, -1),
        starts=_more_rows(batch.documents.starts, missing, 0),
        own=slice(ranks.rank * own, (ranks.rank + 1) * own),
    )


def _more_rows(tensor: Tensor, count: int, value: int | bool) -> Tensor:
    return functional.pad(tensor, (0, 0, 0, count), value=value) if count else tensor
