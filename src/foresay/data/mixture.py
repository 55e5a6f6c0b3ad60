"""Parts of the data, split and mixed by weight."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresay.data.corpus import Part
from foresay.data.example import Example, Examples
from foresay.foundation.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixture(Examples):
    """Examples of several parts as one sequence."""

    parts: tuple[Sequence[Example], ...]
    places: np.ndarray[Any, np.dtype[np.int64]]
    """(N, 2) int64: part and index in it."""

    def __len__(self) -> int:
        return len(self.places)

    def at(self, place: int) -> Example:
        """The example there, of the part it is in."""
        part, own = map(int, self.places[place])
        return self.parts[part][own]


def split(parts: Sequence[Part], heldout: int, seed: int) -> tuple[Mixture, Mixture]:
    """Training examples, mixed by weight, and `heldout` others, at most a fifth of all.

    Held-out examples are taken away first, so that no repetition brings them back. Raises DataError for fewer than 2.
    """
    sizes = [len(part.examples) for part in parts]
    total = sum(sizes)
    if total < 2:
        raise DataError(f"the data holds {total} usable example; give at least 2, one to train and one to test")
    owner = np.repeat(np.arange(len(parts)), sizes)
    index = np.concatenate([np.arange(size) for size in sizes])
    shuffled = np.array(random.Random(seed).sample(range(total), total))
    places = np.stack((owner, index), axis=1)[shuffled].astype(np.int64)
    cut = min(heldout, max(total // 5, 1)) if heldout else 0
    examples = tuple(part.examples for part in parts)
    mixed = mix(places[cut:], [part.weight for part in parts], seed)
    return Mixture(examples, mixed), Mixture(examples, places[:cut])


def mix(
    places: np.ndarray[Any, np.dtype[np.int64]], weights: Sequence[float | None], seed: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Repeat `places` (N, 2) of small parts until the shares are as weighted; every place stays at least once.

    Without any weight nothing is repeated; beside a weight, a part without one has weight 1.
    """
    if not any(weights):
        return places
    groups = [places[places[:, 0] == part] for part in range(len(weights))]
    shares = [weight or 1.0 for weight in weights]
    unit = max(len(group) / share for group, share in zip(groups, shares))
    chance = np.random.default_rng(seed)
    chosen = []
    for group, share in zip(groups, shares):
        wanted = round(unit * share) if len(group) else 0
        rest = chance.permutation(len(group))[: wanted % max(len(group), 1)]
        chosen += [group] * (wanted // max(len(group), 1)) + [group[rest]]
    return np.concatenate(chosen)
