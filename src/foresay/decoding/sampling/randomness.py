"""Chance, apart from what it decides: the laws replace it by an enumeration of every outcome."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Dice(ABC):
    """Random decisions for the live sequences of a batch."""

    @abstractmethod
    def accept(self, chances: Tensor, counts: Sequence[int]) -> Tensor:
        """True with the given chance: `chances` (B, N), aligned to the right, the last `counts[b]` of them in use."""

    @abstractmethod
    def pick(self, distribution: Tensor, wanted: Sequence[bool] | None = None) -> Tensor:
        """One index a row of `distribution` (B, V), which sums to 1: (B,) int64.

        Sequences that are not `wanted` draw nothing, whatever the others do; their index means nothing.
        """

    @abstractmethod
    def select(self, sequences: Sequence[int]) -> None:
        """Keep these sequences of the batch, in this order."""


class SeededDice(Dice):
    """A generator of its own for every sequence, so that its draws do not depend on the rest of the batch."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        """Seed and index in the whole request decide a sequence's draws."""
        self._generators = [torch.Generator().manual_seed(seed + index) for index in indices]

    @classmethod
    def seeded(cls, seeds: Sequence[int]) -> "SeededDice":
        """Dice of sequences that have seeds of their own, as each would have alone."""
        dice = cls(0, ())
        dice._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return dice

    def of(self, sequences: Sequence[int]) -> "SeededDice":
        """The dice of these sequences alone: what they draw is drawn here too."""
        some = SeededDice.seeded(())
        some._generators = [self._generators[place] for place in sequences]
        return some

    def join(self, other: "SeededDice") -> None:
        """Take the sequences of `other` behind one's own."""
        self._generators += other._generators

    def accept(self, chances: Tensor, counts: Sequence[int]) -> Tensor:
        """See `Dice.accept`."""
        drawn = torch.ones(chances.shape, dtype=torch.float64)
        for row, (generator, count) in enumerate(zip(self._generators, counts)):
            if count:
                drawn[row, -count:] = torch.rand(count, generator=generator, dtype=torch.float64)
        return drawn.to(chances.device) < chances

    def pick(self, distribution: Tensor, wanted: Sequence[bool] | None = None) -> Tensor:
        """See `Dice.pick`; by the inverse of the cumulative sum, never an index of probability zero."""
        drawn = torch.zeros(len(self._generators), dtype=torch.float64)
        for row, generator in enumerate(self._generators):
            if wanted is None or wanted[row]:
                drawn[row] = torch.rand((), generator=generator, dtype=torch.float64)
        reached = distribution.double().cumsum(dim=-1)
        # Rounding may leave the last sum below 1: what is drawn is a share of it.
        shares = drawn.to(distribution.device)[:, None] * reached[:, -1:]
        return torch.searchsorted(reached, shares, right=True)[:, 0].clamp(max=distribution.shape[-1] - 1)

    def select(self, sequences: Sequence[int]) -> None:
        """See `Dice.select`."""
        self._generators = self.of(sequences)._generators


class LoadedDice(Dice):
    """Sampling broken on purpose: every draft drawn by chance stays. What tests sampling must catch them."""

    def __init__(self, dice: Dice) -> None:
        """Beside that, `dice` decide."""
        self._dice = dice

    def accept(self, chances: Tensor, counts: Sequence[int]) -> Tensor:
        """See `Dice.accept`; true, whatever the chances."""
        return torch.ones_like(chances, dtype=torch.bool)

    def pick(self, distribution: Tensor, wanted: Sequence[bool] | None = None) -> Tensor:
        """See `Dice.pick`."""
        return self._dice.pick(distribution, wanted)

    def select(self, sequences: Sequence[int]) -> None:
        """See `Dice.select`."""
        self._dice.select(sequences)
