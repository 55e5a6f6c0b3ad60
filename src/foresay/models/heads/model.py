"""The family `heads` (paper B): several output heads on one trunk, of which the first is the model's own.

Trunk and head 1 are an ordinary causal LM, the base; the other heads stand beside it (`anticausal`: inside it). Head i
says the token i places on. In a decoding call a head's states at an anchor stand where the states of the i-1st mask
after it would: whoever drafts knows no difference between the families.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from foresay.foundation.errors import ConfigError
from foresay.models.base.cache import SlotCache
from foresay.models.base.model import Base, Rows
from foresay.models.config import HeadsConfig
from foresay.models.drafting import DraftingModel, Placed, rank
from foresay.models.heads.layers import Passed, Tap, draw_weights, new_layers, tail_of
from foresay.models.layout.call import Call


class Heads(nn.Module):
    """What stands beside the base: heads 2..n, and their unembeddings where they have their own."""

    def __init__(self, base: Base, config: HeadsConfig) -> None:
        super().__init__()
        vocabulary, width = base.head.weight.shape
        match config.variant:
            case "linear":
                size = base.model.config.get_text_config().hidden_size
                self.layers = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(config.drafts))
            case "anticausal":
                self.layers = nn.ModuleList()
            case _:
                self.layers = new_layers(base, config.drafts)
        own = config.drafts if config.replicated else 0
        self.unembeddings = nn.ModuleList(nn.Linear(width, vocabulary, bias=False) for _ in range(own))


@dataclass(frozen=True, slots=True)
class Point:
    """States of the trunk or a head, where training may cut the graph."""

    head: int
    """Whose they are; 0: the trunk's, which is no head."""
    made: Tensor
    """(B, T, D)."""
    leaf: Tensor
    """The same, cut off: what goes on from here collects its gradient in it."""


class HeadsModel(DraftingModel):
    """A causal LM with n heads. `points` and `branches` are for training, `see` is for decoding."""

    config: HeadsConfig

    def __init__(self, base: Base, config: HeadsConfig) -> None:
        inner = config.heads if config.variant == "anticausal" else min(config.layers, 1)
        if inner >= base.layers:
            cure = f"ask for at most {base.layers - 1}" if base.layers > 1 else "give a base of two layers or more"
            raise ConfigError(
                f"{config.heads} {config.variant} heads were asked for and the base has {base.layers} layers; {cure}, "
                "so that a trunk is left"
            )
        super().__init__(base, config)
        self._tail = tail_of(base)
        self._inner = inner
        self._tap = Tap([*list(base.decoder_layers())[base.layers - inner :], self._tail[0]])
        self.heads = Heads(base, config).to(base.device, base.dtype)

    @classmethod
    def from_base(cls, model: PreTrainedModel, config: HeadsConfig, seed: int = 0) -> "HeadsModel":
        """Fresh heads on `model`, which is put in eval mode: no dropout.

        Raises UnsupportedBase when `model` cannot be driven through explicit rows, ConfigError for too many heads.
        """
        made = cls(Base(model), config)
        made.reset(seed)
        made.probe()
        return made

    @property
    def added(self) -> nn.Module:
        """Heads 2..n."""
        return self.heads

    def reset(self, seed: int) -> None:
        """Draw the starting weights of heads 2..n as the base's were drawn; linear ones start as head 1."""
        draw_weights(self.base, self.heads, seed)
        if self.config.variant == "linear":
            with torch.no_grad():
                for layer in self.heads.layers:
                    nn.init.eye_(layer.weight)  # type: ignore[arg-type]

    def copy_last_layer(self) -> None:
        """Let heads 2..n begin as head 1, where they are layers: a start for heads on a trained base."""
        if self.config.variant in ("parallel", "causal"):
            last = self.base.decoder_layers()[-1].state_dict()
            for layer in self.heads.layers:
                layer.load_state_dict(last)
        for unembedding in self.heads.unembeddings:
            unembedding.load_state_dict({"weight": self.base.head.weight})

    def tail(self, states: Tensor) -> Tensor:
        """What a head's states (..., D) are unembedded from: after the base's own final norm."""
        for module in self._tail:
            states = module(states)
        return states

    def logits(self, head: int, states: Tensor) -> Tensor:
        """Logits (..., V) of head 1..n from states after the tail (..., D)."""
        return self.base.scaled(self._unembedding(head)(states))

    def points(self, ids: Tensor, cut: bool = True) -> tuple[list[Point], Passed]:
        """Run whole sequences `ids` (B, T) int64: trunk and heads that follow one another, from the trunk on.

        Also what the base called its last layer with, for `branches`. Not `cut`, the graph goes through.
        """
        with self._tap.reading(cut) as passed:
            self.base.read(ids)
        points = [Point(head, one.made, one.leaf) for head, one in zip(self._order, passed)]
        if self.config.variant == "causal":
            for head, layer in enumerate(self.heads.layers, 2):
                made = passed[0].again(layer, points[-1].leaf)
                points.append(Point(head, made, made.detach().requires_grad_() if cut else made))
        return points, passed[0]

    def branches(self, trunk: Tensor, call: Passed) -> Iterator[tuple[int, Tensor]]:
        """Heads that no other depends on, one after the other: (head, its states (B, T, D)) from the trunk's."""
        if self.config.variant in ("parallel", "linear"):
            for head, layer in enumerate(self.heads.layers, 2):
                yield head, self._run(layer, trunk, call)

    def compile_steps(self, wanted: bool = True) -> None:
        """Raises ConfigError when asked: what the base's layers are called with is read by a hook, step by step."""
        if wanted:
            raise ConfigError(
                "compiled steps were asked for, and steps with heads cannot be compiled; leave out compile"
            )

    def cache(self, slots: int, masks: int, sequences: int = 0) -> SlotCache:
        """An empty cache, for the base's layers and as many heads as there may be drafts."""
        own = masks if self.config.variant in ("parallel", "causal") else 0
        return SlotCache(self.base.layers + own, slots, sequences)

    def see(self, ids: Tensor, call: Call, cache: SlotCache, keep: int) -> Rows:
        """See `DraftingModel.see`: real rows only, and heads where the layout has masks."""
        layout = call.layout
        seen = super().see(ids, replace(call, layout=replace(layout, blocks=())), cache, keep)
        own, drawing = seen.states[:, :, 0], layout.draw(ids.device)
        if not layout.masks:
            return Rows(seen.logits, own)
        drafts = seen.states[:, drawing.anchors, 1 + drawing.mask_indices]
        return Rows(seen.logits, torch.cat((own, drafts), dim=1))

    def _step(self, placed: Placed, cache: SlotCache) -> tuple[Tensor, Tensor]:
        """Logits, and states (B, R, 1 + heads, D), all after the tail: those of head 1, then of heads 2.."""
        with self._tap.reading() as passed:
            embeds = self.base.embedding(placed.ids)
            seen = self.base.run(embeds, placed.positions, placed.visible, cache, placed.kept)
        after = map(self.tail, self._after(passed, cache))
        return seen.logits, torch.stack((seen.states, *after), dim=2)

    def _after(self, passed: list[Passed], cache: SlotCache) -> Iterator[Tensor]:
        """States of heads 2.. at all rows, before the tail; each layer writes its own K/V."""
        trunk, states = passed[0].leaf, passed[-1].leaf
        match self.config.variant:
            case "anticausal":
                yield from (one.leaf for one in passed[-2:0:-1])
            case "linear":
                yield from (layer(trunk) for layer in self.heads.layers)
            case variant:
                for index, layer in enumerate(list(self.heads.layers)[: len(cache.layers) - self.base.layers]):
                    own = cache.with_last(self.base.layers, self.base.layers + index)
                    states = self._run(layer, trunk if variant == "parallel" else states, passed[0], own)
                    yield states

    def guess(self, previous: Tensor, states: Tensor, index: int, tokens: Tensor | None) -> Tensor:
        """See `DraftingModel.guess`: a head does not know what the one before it said."""
        return rank(self._unembedding(index + 2), states, tokens)

    def _first_guesses(self, states: Tensor) -> Tensor:
        """See `DraftingModel._first_guesses`; heads with unembeddings of their own need a product each."""
        if not self.config.replicated:
            return super()._first_guesses(states)
        ranked = [self._unembedding(index + 2)(state) for index, state in enumerate(states.unbind(1))]
        return torch.stack(ranked, dim=1)

    @property
    def _order(self) -> tuple[int, ...]:
        """Whose states the base lets by: the trunk's (0), then heads."""
        heads = self.config.heads
        return {"anticausal": (0, *range(heads, 0, -1)), "linear": (1,)}.get(self.config.variant, (0, 1))

    def _run(self, layer: nn.Module, states: Tensor, call: Passed, cache: Cache | None = None) -> Tensor:
        output: Tensor = layer(states) if self.config.variant == "linear" else call.again(layer, states, cache)
        return output

    def _unembedding(self, head: int) -> nn.Linear:
        own = head > 1 and self.config.replicated
        return self.heads.unembeddings[head - 2] if own else self.base.head  # type: ignore[return-value]
