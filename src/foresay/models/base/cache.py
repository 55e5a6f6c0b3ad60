"""Two caches behind transformers' `Cache`: slots for decoding, kept rows for the mask pass of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

SMALLEST = 256
"""Slots that attention is shown at least, where their number is part of a recorded or compiled shape."""


@dataclass(slots=True)
class Placement:
    """Where the rows of the running call go; shared by all layers of a cache."""

    slots: Tensor | None = None
    """(B, T) int64."""
    used: int = 0
    """Slots that the call may see: those after it are never handed to attention."""


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """What transformers asks of a cache layer but explicit masks and positions make needless."""

    keys: Tensor | None
    values: Tensor | None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise NotImplementedError

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class SlotLayer(_Layer):
    """K/V of one layer, preallocated and zeroed: (N, H, S, D), one slot a row, the live sequences first."""

    def __init__(self, slots: int, placement: Placement, sequences: int) -> None:
        super().__init__()
        self.slots, self.placement, self.sequences = slots, placement, sequences

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate with the shapes, dtype and device of the first rows seen, for as many sequences or more."""
        self.keys, self.values = (
            states.new_zeros(max(self.sequences, len(states)), states.shape[1], self.slots, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the call's rows (B, H, T, D) to their slots; return the slots in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        slots, used = self.placement.slots, self.placement.used
        assert slots is not None, "place the rows before the call"
        for stored, states in ((self.keys, key_states), (self.values, value_states)):
            if len(slots) == 1:
                stored[:1].index_copy_(2, slots[0], states)
            else:
                sequence = torch.arange(len(slots), device=slots.device)[:, None]
                stored[sequence, :, slots] = states.transpose(1, 2)
        return self.keys[: len(slots), :, :used], self.values[: len(slots), :, :used]


@dataclass(frozen=True, slots=True)
class SlotShapes:
    """What a slot holds of each layer."""

    heads_and_widths: tuple[tuple[int, int], ...]
    """(H, D) of keys and of values, layer by layer."""

    @property
    def sizes(self) -> list[int]:
        """Numbers of a slot in each of them."""
        return [heads * width for heads, width in self.heads_and_widths]


class SlotCache(Cache):  # type: ignore[misc]
    """Preallocated slots for every layer, full length in sliding-window layers too (masked there)."""

    def __init__(self, layers: int, slots: int, sequences: int = 0) -> None:
        """`slots` for each of `sequences`, or of those in the first call where they are more."""
        self.placement, self.slots = Placement(), slots
        super().__init__(layers=[SlotLayer(slots, self.placement, sequences) for _ in range(layers)])

    @property
    def begun(self) -> bool:
        """A call was made."""
        return bool(self.layers[0].is_initialized)

    def bucket(self, used: int) -> int:
        """Slots that attention is shown where shapes are to be few: a power of two from `SMALLEST`, or all."""
        return min(max(SMALLEST, 1 << max(used - 1, 0).bit_length()), self.slots)

    def place(self, slots: Tensor, used: int) -> None:
        """Say where the next call's rows go: `slots` (B, T) int64, of which the first `used` are seen."""
        self.placement.slots, self.placement.used = slots, used

    def with_last(self, layers: int, last: int) -> Cache:
        """The first `layers` of them, but that layer `last` stands in for the last one: for a head that believes so."""
        return Cache(layers=[*self.layers[: layers - 1], self.layers[last]])

    def move(self, start: Tensor, slots: Tensor) -> None:
        """Copy what lies in `slots` (B, N) int64 to the N slots from `start` (B,) int64 on; all are read first."""
        sequence = torch.arange(len(slots), device=slots.device)[:, None]
        after = start[:, None] + torch.arange(slots.shape[1], device=slots.device)
        for layer in self.layers:
            for stored in (layer.keys, layer.values):
                stored[sequence, :, after] = stored[sequence, :, slots]

    def select(self, sequences: Sequence[int]) -> None:
        """Keep these sequences, in this order; none may move after another one that is yet to be moved.

        What moves is copied, not the whole cache: the places of those that left stay allocated.
        """
        for place, sequence in enumerate(sequences):
            assert sequence >= place, f"{sequences} cannot be moved one by one"
            if sequence == place:
                continue
            for layer in self.layers:
                for stored in (layer.keys, layer.values):
                    stored[place, :, : self.placement.used] = stored[sequence, :, : self.placement.used]

    @property
    def _stored(self) -> list[Tensor]:
        """Keys and values of every layer, (N, H, S, D) each."""
        return [stored for layer in self.layers for stored in (layer.keys, layer.values)]

    @property
    def shapes(self) -> SlotShapes:
        """What a slot holds, once a call was made."""
        return SlotShapes(tuple((stored.shape[1], stored.shape[3]) for stored in self._stored))

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a slot in all layers, once a call was made."""
        return sum(stored[0, :, 0].nbytes for stored in self._stored)

    @property
    def unreadable(self) -> str:
        """Why slots cannot be read as one row of numbers, once a call was made; empty: they can."""
        if not all(layer.is_initialized for layer in self.layers):
            return "some layers of the base keep no K/V of their own"
        kinds = sorted({str(stored.dtype) for stored in self._stored})
        return f"layers of the base keep K/V in {' and '.join(kinds)}" if len(kinds) > 1 else ""

    def begin(self, shapes: SlotShapes, sequences: int, like: Tensor) -> None:
        """Allocate for so many sequences what a first call would, with the dtype and device of `like`."""
        pairs = zip(shapes.heads_and_widths[::2], shapes.heads_and_widths[1::2])
        for layer, pair in zip(self.layers, pairs):
            if not layer.is_initialized:
                layer.lazy_initialization(*(like.new_empty(sequences, heads, 0, width) for heads, width in pair))

    def read(self, sequence: int, start: int, stop: int, block: int) -> Tensor:
        """A copy of the slots from `start` to `stop` of a sequence, (blocks, F): all layers of `block` slots a row."""
        blocks = (stop - start) // block
        parts = [stored[sequence, :, start:stop] for stored in self._stored]
        apart = [part.reshape(len(part), blocks, block, -1).transpose(0, 1).flatten(1) for part in parts]
        return torch.cat(apart, dim=1)

    def write(self, sequence: int, blocks: Tensor, block: int) -> None:
        """What `read` gave, (blocks, F), into the first slots of a sequence."""
        parts = torch.split(blocks, [block * size for size in self.shapes.sizes], dim=1)
        for stored, part in zip(self._stored, parts):
            apart = part.reshape(len(blocks), stored.shape[1], block, stored.shape[3])
            slots = apart.transpose(0, 1).flatten(1, 2)
            stored[sequence, :, : slots.shape[1]] = slots

    def take(self, other: "SlotCache", first: int, count: int) -> None:
        """Copy the first `count` sequences of `other` to the places from `first` on: what fits here holds them."""
        used = min(other.placement.used, self.slots)
        for own, new in zip(self.layers, other.layers):
            if not own.is_initialized:
                own.lazy_initialization(new.keys, new.values)
            for stored, states in ((own.keys, new.keys), (own.values, new.values)):
                stored[first : first + count, :, :used] = states[:count, :, :used]
        self.placement.used = max(self.placement.used, used)


@dataclass(slots=True)
class CacheReading:
    """What the running call does with a `KeptCache`; shared by its layers."""

    sequences: slice
    rows: slice | None
    """Real rows that the call keeps; None for mask rows, which are not kept."""
    in_place: bool
    """Mask rows attend to the kept rows where they lie, without a copy that has both."""


class KeptLayer(_Layer):
    """K/V of one layer from the base pass, (B, H, R, D), which the mask pass reads and never changes."""

    def __init__(self, shape: torch.Size, reading: CacheReading) -> None:
        super().__init__()
        self.shape, self.reading = shape, reading

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for all sequences, with the dtype and device of the first rows seen."""
        batch, rows = self.shape
        self.keys, self.values = (
            states.new_empty(batch, states.shape[1], rows, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep real rows and return all so far; mask rows come back after the kept ones, or alone (`in_place`)."""
        sequences, rows = self.reading.sequences, self.reading.rows
        if rows is None and self.reading.in_place:
            return key_states, value_states
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if rows is None:
            return torch.cat((self.keys, key_states), dim=2), torch.cat((self.values, value_states), dim=2)
        self.keys[sequences, :, rows], self.values[sequences, :, rows] = key_states, value_states
        return self.keys[sequences, :, : rows.stop], self.values[sequences, :, : rows.stop]


class KeptCache(Cache):  # type: ignore[misc]
    """What the mask pass of training attends to: K/V of the real rows of all sequences, `shape` (B, R)."""

    def __init__(self, layers: int, shape: torch.Size) -> None:
        self.reading, self.shape = CacheReading(slice(0), slice(0), in_place=False), shape
        super().__init__(layers=[KeptLayer(shape, self.reading) for _ in range(layers)])

    def keep(self, sequences: slice, rows: slice) -> None:
        """The next call brings these real rows of these sequences, after all rows before them."""
        self.reading.sequences, self.reading.rows = sequences, rows

    def read(self, in_place: bool) -> None:
        """The next calls bring mask rows of all sequences."""
        self.reading.rows, self.reading.in_place = None, in_place
