"""Whether packed linears are faster than plain ones here: a short measurement, once per machine and kind of model."""

import json
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from foresay.foundation.files import cache_folder, put
from foresay.foundation.hashes import short_hash
from foresay.foundation.machine import OtherPrograms, machine
from foresay.models.base.packed_linears import PackedGroup, plain_weight
from foresay.models.base.shared_inputs import Group

STEP_ROWS = (1, 4, 9, 16, 25)
"""Rows of a call that decoding makes."""
PREFILL_ROWS = 256
"""Rows of a prompt: they must not become slower. One of them is unembedded."""
ROUNDS = 3
"""Times that every product is measured."""
ENOUGH_BYTES = 64 * 2**20
"""Weights of one shape that are multiplied in turn, so that none waits in the processor's cache; a step reads all."""
TOLERANCE = 1.05
"""Prefill may measure this much slower: noise."""
TRIES = 3
"""Processes that measure until one is not disturbed; after that the least of all decides."""
METHOD = 3
"""Counts the ways of measuring: files made in another way are not read."""
Seconds = dict[str, list[float]]
"""Of `plain` and `packed` linears, at every number of rows, the prompt's last."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is kept."""

    seconds: Seconds
    calm: bool
    """No other program took the processor meanwhile."""
    tries: int = 1

    @property
    def settled(self) -> bool:
        """Nothing is measured again."""
        return self.calm or self.tries >= TRIES

    def beside(self, former: "Measured | None") -> "Measured":
        """The calm one, or the lower figures of both: other programs only ever add."""
        if former is None or self.calm:
            return self
        both = {name: [min(pair) for pair in zip(self.seconds[name], former.seconds[name])] for name in self.seconds}
        return Measured(both, False, former.tries + 1)


DECIDED: dict[Path, bool] = {}
"""What was decided in this process."""


def packing_pays(groups: Sequence[Group], unembedding: nn.Module) -> bool:
    """Whether a step of the packable linears in `groups`, some at least, is faster packed, and prefill not slower.

    `unembedding` is the linear that a prompt needs for one row alone. Read from the cache folder (`FORESAY_CACHE`, else
    `~/.cache/foresay`) when measured before on this machine with linears of these shapes, undisturbed; else measured,
    which takes a second or two, and kept there.
    """
    path = _file(groups)
    if path not in DECIDED:
        kept = _read(path)
        found = kept if kept is not None and kept.settled else _measured(groups, unembedding).beside(kept)
        if found is not kept:
            with suppress(OSError):  # `DECIDED` remembers it; step costs, which are kept in the same folder, warn
                put(path, json.dumps(asdict(found)))
        DECIDED[path] = pays(found.seconds)
    return DECIDED[path]


def pays(seconds: Seconds) -> bool:
    """The decision by what was measured."""
    *steps, prefill = (packed / plain for plain, packed in zip(seconds["plain"], seconds["packed"]))
    return geometric_mean(steps) < 1 and prefill <= TOLERANCE


@torch.no_grad()
def measure(groups: Sequence[Group], unembedding: nn.Module) -> Seconds:
    """Seconds of all products of a call at each of `STEP_ROWS` and `PREFILL_ROWS` rows, plain and packed.

    Of linears of one shape and dtype a few are measured and stand for all.
    """
    alike: dict[Any, list[Group]] = {}
    for group in groups:
        alike.setdefault(_shape(group), []).append(group)
    seconds = {name: [0.0] * (len(STEP_ROWS) + 1) for name in ("plain", "packed")}
    for some in alike.values():
        few = some[: max(1, ENOUGH_BYTES // sum(linear.weight.nbytes for linear in some[0]))]  # type: ignore[union-attr, operator, misc]
        calls = {"plain": [_plain(group) for group in few], "packed": [_packed(group) for group in few]}
        inputs = plain_weight(some[0][0])
        for index, rows in enumerate((*STEP_ROWS, 1 if unembedding in some[0] else PREFILL_ROWS)):
            states = inputs.new_ones(1, rows, inputs.shape[1])
            for name, least in _least(calls, states).items():
                seconds[name][index] += least * len(some) / len(few)
    return seconds


Calls = dict[str, list[Callable[[Tensor], Any]]]


def _least(calls: Calls, states: Tensor) -> dict[str, float]:
    """Fewest seconds of each list of products; they take turns, the first of which does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + ROUNDS):
        for name, some in calls.items():
            started = perf_counter()
            for call in some:
                call(states)
            taken[name].append(perf_counter() - started)
    return {name: min(rounds[1:]) for name, rounds in taken.items()}


def _plain(group: Group) -> Callable[[Tensor], Any]:
    return lambda states: [type(linear).forward(linear, states) for linear in group]


def _packed(group: Group) -> Callable[[Tensor], Any]:
    packed = PackedGroup.of(group)
    return lambda states: [packed.output(index, states) for index in range(len(group))]


def _measured(groups: Sequence[Group], unembedding: nn.Module) -> Measured:
    others, began = OtherPrograms(), perf_counter()
    seconds = measure(groups, unembedding)
    return Measured(seconds, calm=not others.disturbed(perf_counter() - began))


def _shape(group: Group) -> tuple[Any, ...]:
    weights = [(type(linear).__name__, plain_weight(linear)) for linear in group]
    return tuple((kind, tuple(weight.shape), str(weight.dtype)) for kind, weight in weights)


def _file(groups: Sequence[Group]) -> Path:
    """File of the measurement; its name holds all that it depends on."""
    facts = (METHOD, platform.node(), machine(), torch.__version__, sorted(map(_shape, groups)))
    return cache_folder() / f"packing-{short_hash(repr(facts))}.json"


def _read(path: Path) -> Measured | None:
    """The measurement in the file; None where there is none that can be decided by."""
    try:
        found = Measured(**json.loads(path.read_text()))
        sound = all(
            len(found.seconds[name]) == len(STEP_ROWS) + 1 and min(found.seconds[name]) > 0
            for name in ("plain", "packed")
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if sound and found.tries >= 1 else None
