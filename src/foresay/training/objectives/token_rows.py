"""Rows of one length for pretraining: all tokens of all examples, one after the other."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from foresay.data.example import Example
from foresay.foundation.errors import DataError


def token_rows(examples: Sequence[Example], length: int, answers_only: bool = False) -> Tensor:
    """The tokens of `examples` in their order, cut into rows: (N, length) int32; what is left over is dropped.

    Documents follow one another in a row and see what stands before them, as usual in pretraining. With `answers_only`
    a token that carries no loss is written as its complement (`read_rows`). Raises DataError for less than one row.
    """
    tokens = np.concatenate([np.asarray(example.ids, np.int32) for example in examples])
    if answers_only:
        carries = np.concatenate([np.asarray(example.answer, bool) for example in examples])
        tokens = np.where(carries, tokens, ~tokens)
    rows = len(tokens) // length
    if not rows:
        raise DataError(
            f"the data holds {len(tokens)} tokens, less than one row of {length}; give more, or less length"
        )
    return torch.from_numpy(tokens[: rows * length]).view(rows, length)


def read_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (B, length) as `token_rows` writes them: the tokens, in the same dtype, and (B, length) bool, true where
    one carries loss as a target.
    """
    carries = rows >= 0
    return torch.where(carries, rows, ~rows), carries


def row_batches(rows: Tensor, count: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Endless batches (count, length) int64 on `device`, of `rows` (N, length) int32 on the CPU.

    Every epoch is in a new order, a pure function of the seed; a batch may hold the end of one and the start of the
    next.
    """
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.zeros(0, dtype=torch.int64)
    while True:
        while len(waiting) < count:
            waiting = torch.cat((waiting, torch.randperm(len(rows), generator=generator)))
        chosen, waiting = waiting[:count], waiting[count:]
        yield rows[chosen].long().to(device)
