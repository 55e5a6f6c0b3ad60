"""Every outcome of every draw: numbers that take the decisions of a script, and the paths of decisions one by one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from foresay.decoding.sampling.randomness import RandomNumbers
from foresay.models.base.cache import SlotCache
from foresay.models.base.model import Rows
from foresay.models.drafting import DraftingModel
from foresay.models.layout.call import Call


class Enumeration(RandomNumbers):
    """Takes the decisions of a script, then the first possible one, and remembers what else could have been."""

    def __init__(self, script: Sequence[int]) -> None:
        self.script, self.options, self.chance, self.ended = list(script), [], 1.0, False

    def decide(self, chances: Sequence[float]) -> int:
        assert not self.ended, "its only sequence has ended"
        possible = [choice for choice, chance in enumerate(chances) if chance > 0]
        place = len(self.options)
        self.options.append(possible)
        choice = self.script[place] if place < len(self.script) else possible[0]
        self.chance *= chances[choice]
        return choice

    def begin(self, most: int, device: torch.device) -> None:
        pass

    def accept(self, chances: Tensor, places: Tensor) -> Tensor:
        answers = torch.zeros(chances.shape, dtype=torch.bool)
        for row, (chance, place) in enumerate(zip(chances[0].tolist(), places[0].tolist())):
            # Drafts after a rejected one are judged by nobody: no need to branch.
            if place >= 0 and not self.decide([1 - chance, chance]):
                break
            answers[0, row] = place >= 0
        return answers

    def pick(self, distributions: Tensor, places: Tensor) -> Tensor:
        assert distributions.shape[:2] == places.shape == (1, 1)
        return torch.tensor([[self.decide(distributions[0, 0].tolist())]])

    def walk(self, distributions: Tensor, tokens: Tensor, parents: Tensor, places: Tensor) -> Tensor:
        """Token by token, as plain decoding draws: rows that are not come to are not drawn at."""
        drawn = torch.full_like(tokens, -1)
        row = int((places[0] == 0).long().argmax())
        while row >= 0:
            drawn[0, row] = self.decide(distributions[0, row].tolist())
            after = [r for r in range(row + 1, len(parents)) if parents[r] == row and tokens[0, r] == drawn[0, row]]
            row = after[0] if after else -1
        return drawn

    def settle(self, used: Sequence[int]) -> None:
        pass

    def select(self, sequences: Sequence[int]) -> None:
        assert list(sequences) in ([], [0])
        self.ended = not sequences


def enumerate_outcomes(run: Callable[[Enumeration], tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    """Distribution of what `run` returns, over every path of decisions."""
    outcomes: dict[tuple[int, ...], float] = {}
    scripts: list[list[int]] = [[]]
    while scripts:
        script = scripts.pop()
        rng = Enumeration(script)
        outcome = run(rng)
        outcomes[outcome] = outcomes.get(outcome, 0.0) + rng.chance
        taken = script + [options[0] for options in rng.options[len(script) :]]
        for place in range(len(script), len(rng.options)):
            scripts += [[*taken[:place], other] for other in rng.options[place][1:]]
    return outcomes


@contextmanager
def remembering(model: DraftingModel) -> Iterator[None]:
    """Within the block `model` computes no call twice: paths of decisions begin alike, so most calls come again.

    A call comes again only where every input is the same to the last bit, the whole content of the cache included.
    """
    compute, known = model.see, dict[Any, Any]()

    def see(ids: Tensor, call: Call, cache: SlotCache, keep: int) -> Rows:
        assert call.pads is None
        stored = [tensor for layer in cache.layers if layer.is_initialized for tensor in (layer.keys, layer.values)]
        key = (call.layout, keep, *(tensor.numpy().tobytes() for tensor in (ids, call.past, *stored)))
        if key not in known:
            rows = compute(ids, call, cache, keep)
            known[key] = rows, [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
        rows, content = known[key]
        for layer, (keys, values) in zip(cache.layers, content):
            layer.keys, layer.values, layer.is_initialized = keys.clone(), values.clone(), True
        cache.place(call.slots(), call.used)
        return Rows(*(None if part is None else part.clone() for part in (rows.logits, rows.states, rows.guesses)))

    model.see = see  # type: ignore[method-assign]
    yield
    del model.see
