"""K/V of what was read and written before, for prompts that begin with the same tokens: in blocks, by content hash."""

import hashlib
import logging
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.models.base.cache import SlotCache, SlotShapes

LOG = logging.getLogger("foresay")
BLOCK = 16
"""Tokens of a block, as in vLLM: shorter beginnings are not kept."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Prefix:
    """The kept beginning of a text."""

    blocks: tuple[Tensor, ...] = ()
    """(F,) each: K/V of `BLOCK` tokens in every layer, as `SlotCache.read` gives them."""
    shapes: SlotShapes | None = None

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return BLOCK * len(self.blocks)

    def fill(self, cache: SlotCache, sequence: int, sequences: int) -> None:
        """Write it to the first slots of a sequence, one of so many in a cache that has room for it."""
        if self.blocks:
            assert self.shapes is not None, "blocks have shapes"
            cache.begin(self.shapes, sequences, self.blocks[0])
            cache.write(sequence, torch.stack(self.blocks), BLOCK)


class PrefixCache:
    """Blocks of K/V within a memory budget, the least recently used given up first.

    A block's name is the hash of its tokens and of all tokens before it, and of how many layers are kept: caches of
    one model with more layers (those of heads) do not mix with others.
    """

    def __init__(self, budget: int) -> None:
        """`budget`: most bytes of all blocks together; 0: nothing is kept."""
        self.budget, self.bytes = budget, 0
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()
        self._shapes: dict[int, SlotShapes] = {}

    def find(self, ids: Sequence[int], layers: int) -> Prefix:
        """The longest beginning of `ids` whose K/V in so many layers is kept, in whole blocks."""
        if not self._blocks:
            return Prefix()
        names = []
        for name in _names(ids, layers):
            if name not in self._blocks:
                break
            names.append(name)
        self._touch(names)
        return Prefix(tuple(self._blocks[name] for name in names), self._shapes.get(layers))

    def keep(self, cache: SlotCache, sequence: int, ids: Sequence[int]) -> None:
        """Copy what is not kept yet of a sequence, whose first slots hold the K/V of `ids`."""
        if not self.budget or len(ids) < BLOCK or not self._takes(cache):
            return
        size = BLOCK * cache.bytes_per_token
        names = list(_names(ids, len(cache.layers)))[: self.budget // size]
        first = next((place for place, name in enumerate(names) if name not in self._blocks), len(names))
        new = [name for name in names[first:] if name not in self._blocks]
        self._touch([name for name in names if name in self._blocks])
        self._shrink(self.budget - size * len(new))
        if new:
            blocks = cache.read(sequence, first * BLOCK, len(names) * BLOCK, BLOCK)
            for name, block in zip(names[first:], blocks):
                if name in new:
                    self._blocks[name] = block.clone()
            self.bytes += size * len(new)
        self._touch(names)

    def _takes(self, cache: SlotCache) -> bool:
        """Whether a cache can be kept in blocks; where not, say so once and keep nothing any more."""
        layers = len(cache.layers)
        if layers not in self._shapes:
            reason = cache.unreadable
            if reason:
                LOG.warning("no prefix is kept between requests: %s", reason)
                self.budget = 0
                return False
            self._shapes[layers] = cache.shapes
        return True

    def _touch(self, names: Sequence[bytes]) -> None:
        """These were used, the beginning last: a block is of no use without those before it."""
        for name in reversed(names):
            self._blocks.move_to_end(name)

    def _shrink(self, most: int) -> None:
        """Give up what was not used for longest, down to so many bytes."""
        while self.bytes > most:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.nbytes


def _names(ids: Sequence[int], layers: int) -> Iterator[bytes]:
    """The name of every whole block of `ids`, which stands for all tokens up to its end."""
    name = layers.to_bytes(4, "little")
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        name = hashlib.sha256(name + array("q", ids[start : start + BLOCK]).tobytes()).digest()
        yield name
