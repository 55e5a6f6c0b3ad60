"""Chance, apart from what it decides: the laws replace it by an enumeration of every outcome.

Every sequence has random numbers of its own, in order. The decisions of a step name the numbers that they take by
place: 0 is the first one that no step has used. Which numbers a step has used in the end is known once the device was
read; the others are there for the next step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foresay.models.base.transfer import to_device

AT_ONCE = 64
"""Random numbers of a sequence that are made in one call."""


class RandomNumbers(ABC):
    """Random decisions for the live sequences of a batch."""

    @abstractmethod
    def begin(self, most: int, device: torch.device) -> None:
        """A step begins, which may take so many numbers of each sequence."""

    @abstractmethod
    def accept(self, chances: Tensor, places: Tensor) -> Tensor:
        """True with the given chance: `chances` (B, N), by the numbers at `places` (B, N) int64 -> (B, N) bool.

        Nothing is decided where a place is below 0.
        """

    @abstractmethod
    def pick(self, distributions: Tensor, places: Tensor) -> Tensor:
        """One index of each row of `distributions` (B, P, V), which sum to 1, by the numbers at `places` (B, P)."""

    def walk(self, distributions: Tensor, tokens: Tensor, parents: Tensor, places: Tensor) -> Tensor:
        """A token (B, P) for every row of `distributions` (B, P, V); only those on the way from the first row count.

        The way goes on at the row whose parent it has come to and whose own token, of `tokens` (B, P), was drawn there;
        rows at one place of the way take the same number, for only one of them is come to.
        """
        return self.pick(distributions, places)

    @abstractmethod
    def settle(self, used: Sequence[int]) -> None:
        """The step is over and used so many numbers of each sequence."""

    @abstractmethod
    def select(self, sequences: Sequence[int]) -> None:
        """Keep these sequences of the batch, in this order."""


@dataclass(slots=True)
class Numbers:
    """Uniform random numbers of one sequence, in float64: a generator's, in order, whatever asks for how many."""

    generator: torch.Generator
    made: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    used: int = 0
    """Of those made."""

    def next(self, count: int) -> Tensor:
        """The next ones (count,); they stay the next ones until they are used."""
        if self.used + count > len(self.made):
            fresh = torch.rand(max(AT_ONCE, count), generator=self.generator, dtype=torch.float64)
            self.made, self.used = torch.cat((self.made[self.used :], fresh)), 0
        return self.made[self.used : self.used + count]


class DrawnNumbers(RandomNumbers):
    """Decides by random numbers (B, most) float64 that lie on the device."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def begin(self, most: int, device: torch.device) -> None:
        """See `RandomNumbers.begin`; whoever made the numbers made enough."""
        assert most <= self.numbers.shape[1], f"{most} numbers are needed and {self.numbers.shape[1]} were made"

    def settle(self, used: Sequence[int]) -> None:
        """See `RandomNumbers.settle`; whoever made the numbers counts."""

    def accept(self, chances: Tensor, places: Tensor) -> Tensor:
        """See `RandomNumbers.accept`."""
        return self._at(places) < chances

    def pick(self, distributions: Tensor, places: Tensor) -> Tensor:
        """See `RandomNumbers.pick`; by the inverse of the cumulative sum, never an index of probability zero."""
        reached = distributions.double().cumsum(dim=-1)
        # Rounding may leave the last sum below 1: what is drawn is a share of it.
        shares = self._at(places)[:, :, None] * reached[:, :, -1:]
        return torch.searchsorted(reached, shares, right=True)[:, :, 0].clamp(max=distributions.shape[-1] - 1)

    def select(self, sequences: Sequence[int]) -> None:
        """See `RandomNumbers.select`."""
        self.numbers = self.numbers[to_device(sequences, self.numbers.device)]

    def _at(self, places: Tensor) -> Tensor:
        return self.numbers.gather(1, places.clamp(0, self.numbers.shape[1] - 1))


class SeededNumbers(DrawnNumbers):
    """A generator of its own for every sequence, so that its draws do not depend on the rest of the batch."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        """Seed and index in the whole request decide a sequence's draws."""
        super().__init__(torch.zeros(0, 0, dtype=torch.float64))
        self._sequences = [Numbers(torch.Generator().manual_seed(seed + index)) for index in indices]

    @classmethod
    def seeded(cls, seeds: Sequence[int]) -> "SeededNumbers":
        """RandomNumbers of sequences that have seeds of their own, as each would have alone."""
        rng = cls(0, ())
        rng._sequences = [Numbers(torch.Generator().manual_seed(seed)) for seed in seeds]
        return rng

    def of(self, sequences: Sequence[int]) -> "SeededNumbers":
        """The random numbers of these sequences alone, for the step that has begun."""
        some = SeededNumbers.seeded(())
        some._sequences = [self._sequences[place] for place in sequences]
        everyone = list(sequences) == list(range(len(self._sequences)))
        # Between steps there are none to choose from.
        whole = everyone or not len(self.numbers)
        some.numbers = self.numbers if whole else self.numbers[to_device(sequences, self.numbers.device)]
        return some

    def join(self, other: "SeededNumbers") -> None:
        """Take the sequences of `other` after one's own, between steps."""
        self._sequences += other._sequences

    def next(self, most: int) -> Tensor:
        """The next numbers of each sequence, (B, most) float64, on the CPU."""
        return torch.stack([sequence.next(most) for sequence in self._sequences])

    def begin(self, most: int, device: torch.device) -> None:
        """See `RandomNumbers.begin`."""
        self.numbers = to_device(self.next(most), device)

    def settle(self, used: Sequence[int]) -> None:
        """See `RandomNumbers.settle`."""
        for sequence, count in zip(self._sequences, used, strict=True):
            sequence.used += count
        self.numbers = self.numbers[:0]

    def select(self, sequences: Sequence[int]) -> None:
        """See `RandomNumbers.select`."""
        some = self.of(sequences)
        self._sequences, self.numbers = some._sequences, some.numbers


class BiasedNumbers(RandomNumbers):
    """Sampling broken on purpose: every draft drawn by chance stays. What tests sampling must catch them."""

    def __init__(self, rng: RandomNumbers) -> None:
        """Beside that, `rng` decides."""
        self._rng = rng

    def begin(self, most: int, device: torch.device) -> None:
        """See `RandomNumbers.begin`."""
        self._rng.begin(most, device)

    def accept(self, chances: Tensor, places: Tensor) -> Tensor:
        """See `RandomNumbers.accept`; true, whatever the chances."""
        return torch.ones_like(chances, dtype=torch.bool)

    def pick(self, distributions: Tensor, places: Tensor) -> Tensor:
        """See `RandomNumbers.pick`."""
        return self._rng.pick(distributions, places)

    def settle(self, used: Sequence[int]) -> None:
        """See `RandomNumbers.settle`."""
        self._rng.settle(used)

    def select(self, sequences: Sequence[int]) -> None:
        """See `RandomNumbers.select`."""
        self._rng.select(sequences)
