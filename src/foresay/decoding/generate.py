"""Generation: a session of sequences that go on step by step, and the loop that runs it to its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from foresay.config import DecodeConfig
from foresay.decoding.draft import draft_greedy
from foresay.decoding.plan import Plan, Row, plan
from foresay.decoding.verify import Verdict, verify_greedy
from foresay.errors import PromptError
from foresay.modelling.base import Rows
from foresay.modelling.cache import SlotCache
from foresay.modelling.model import MaskModel

Drafter = Callable[[MaskModel, Tensor, Tensor], Tensor]
"""(model, mask states (B, K, D), newest tokens (B,)) -> drafts (B, K)."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward of the base gave one sequence."""

    tokens: tuple[int, ...]
    """Kept tokens, the stop token included; cut at the stop and at the maximum."""
    drafted: int
    """Drafts that were verified."""
    accepted: int
    """Drafts among the kept tokens."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The answer to one prompt, step by step."""

    steps: tuple[Step, ...]
    ended: Literal["stop", "length"]
    """By a stop token, or by `max_new_tokens` or the context."""

    @property
    def tokens(self) -> list[int]:
        """All kept tokens."""
        return [token for step in self.steps for token in step.tokens]


@dataclass(slots=True)
class Live:
    """A sequence that is still going on."""

    index: int
    row: Row
    room: int
    """Tokens it may still say."""
    steps: list[Step] = field(default_factory=list)


def generate(
    model: MaskModel,
    prompts: Sequence[Sequence[int]],
    config: DecodeConfig,
    watch: Callable[[int, Step], None] | None = None,
    drafter: Drafter = draft_greedy,
) -> list[Generation]:
    """Greedy continuations of `prompts` (token ids), the same as plain decoding would give.

    `watch(prompt index, step)` is called as steps are kept; `drafter` may be replaced, the output does not depend on
    it. Raises PromptError for prompts that cannot be served; nothing is left behind by a refused or broken call.
    """
    _check(model, prompts, config)
    if len(prompts) > 1 and _straddles(model, prompts, config):
        alone = (generate(model, [prompt], config, _renumber(watch, i), drafter) for i, prompt in enumerate(prompts))
        return [generation for [generation] in alone]
    session = Session(model, prompts, config, drafter)
    while session.live:
        for index, step in session.step():
            if watch is not None:
                watch(index, step)
    return [session.done[index] for index in range(len(prompts))]


class Session:
    """Sequences of a batch in their slots. Owns every index of the decode loop."""

    def __init__(
        self, model: MaskModel, prompts: Sequence[Sequence[int]], config: DecodeConfig, drafter: Drafter
    ) -> None:
        self.model, self.config, self.drafter = model, config, drafter
        self.masks = 0 if config.layout == "plain" else config.masks or model.config.num_masks
        self.stops = frozenset() if config.ignore_stop else frozenset(model.base.stop_tokens)
        self.done: dict[int, Generation] = {}
        context, longest = model.base.context, max(map(len, prompts))
        rooms = [min(config.max_new_tokens, context - len(prompt)) for prompt in prompts]
        self.live = [
            Live(index, Row(0, len(prompt), 0), room) for index, (prompt, room) in enumerate(zip(prompts, rooms))
        ]
        slots = longest + max(rooms) + (self.masks + 1) ** 2
        self.cache = SlotCache(model.base.layers, slots)
        padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        self.pending = torch.tensor(padded, device=model.base.device)

    @torch.no_grad()
    def step(self) -> list[tuple[int, Step]]:
        """One forward of the base for every live sequence: (prompt index, step) of each."""
        plan = self._plan()
        ids = plan.align(self.pending)
        seen = self.model.see(ids, plan.call(ids.device), self.cache, plan.drafted + 1)
        verdict = self._verify(plan, ids, seen)
        kept = self._keep(plan, verdict)
        self._draft(plan, seen, verdict)
        return kept

    def _plan(self) -> Plan:
        rows = [live.row for live in self.live]
        return plan(rows, self.config.layout, self.masks, self.model.base.limits)

    def _verify(self, plan: Plan, ids: Tensor, seen: Rows) -> Verdict:
        drafted = torch.tensor([row.drafted for row in plan.rows], device=ids.device)
        return verify_greedy(seen.logits, ids[:, ids.shape[1] - plan.drafted :], drafted)

    def _keep(self, plan: Plan, verdict: Verdict) -> list[tuple[int, Step]]:
        """Read what was accepted (the step's one look at the device), commit its slots, end what is finished."""
        read = torch.cat((verdict.accepted[:, None], verdict.tokens), dim=1).tolist()
        kept = []
        for live, row, (accepted, *tokens) in zip(self.live, plan.rows, read):
            first = plan.drafted - row.drafted
            said = self._cut(tokens[first : first + accepted + 1], live.room)
            step = Step(tuple(said), row.drafted, min(accepted, len(said)))
            live.steps.append(step)
            live.room -= len(said)
            live.row = Row(row.past + row.fresh - row.drafted + accepted, 1, 0)
            kept.append((live.index, step))
        return kept

    def _cut(self, tokens: list[int], room: int) -> list[int]:
        """Tokens up to the first stop token and within the room."""
        stop = next((place for place, token in enumerate(tokens, 1) if token in self.stops), len(tokens))
        return tokens[: min(stop, room)]

    def _draft(self, plan: Plan, seen: Rows, verdict: Verdict) -> None:
        """Drop the finished, draft for the others from the block behind their last accepted row."""
        going = [place for place, live in enumerate(self.live) if not self._finish(live)]
        if not going:
            self.live = []
            return
        states, newest, accepted = seen.states, verdict.newest, verdict.first + verdict.accepted
        if len(going) < len(self.live):
            chosen = torch.tensor(going, device=newest.device)
            states, newest, accepted = states[chosen], newest[chosen], accepted[chosen]
            self.cache.select(chosen)
            self.live = [self.live[place] for place in going]
        drawing = plan.layout.draw(newest.device)
        anchors = accepted + (plan.layout.real - plan.drafted - 1)
        sizes = self._sizes(drawing.block_sizes, anchors)
        self.pending = newest[:, None]
        if max(sizes):
            rows = drawing.block_rows[anchors][:, : max(sizes)]
            block = states.gather(1, rows[:, :, None].expand(-1, -1, states.shape[2]))
            self.pending = torch.cat((self.pending, self.drafter(self.model, block, newest)), dim=1)
        for live, size in zip(self.live, sizes):
            live.row = Row(live.row.past, 1 + size, size)

    def _sizes(self, sizes: Tensor, anchors: Tensor) -> list[int]:
        """Masks behind each sequence's last accepted row."""
        counts: list[int] = sizes[anchors].tolist()
        return counts

    def _finish(self, live: Live) -> bool:
        """Move a sequence that stopped or used up its room to `done`."""
        stopped = live.steps[-1].tokens[-1] in self.stops
        if stopped or live.room == 0:
            self.done[live.index] = Generation(tuple(live.steps), "stop" if stopped else "length")
            return True
        return False


def _check(model: MaskModel, prompts: Sequence[Sequence[int]], config: DecodeConfig) -> None:
    if not prompts:
        raise PromptError("no prompt was given; give at least one")
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise PromptError(f"prompt {number} has no tokens; give at least one")
        if len(prompt) >= model.base.context:
            raise PromptError(
                f"prompt {number} has {len(prompt)} tokens and the base's context is {model.base.context}; shorten it "
                f"to {model.base.context - 1} or fewer"
            )
        if min(prompt) < 0 or max(prompt) >= model.base.embedding.weight.shape[0]:
            raise PromptError(
                f"prompt {number} has token {max(prompt)} and the base knows 0 to "
                f"{model.base.embedding.weight.shape[0] - 1}; use the base's own tokenizer"
            )
    if config.masks > model.config.num_masks:
        raise PromptError(
            f"{config.masks} masks were asked for and the adapter was trained with {model.config.num_masks}; ask for "
            f"at most {model.config.num_masks}"
        )


def _straddles(model: MaskModel, prompts: Sequence[Sequence[int]], config: DecodeConfig) -> bool:
    """Sequences could stand on both sides of a limit, where a shared call would change the shorter ones."""
    shortest = min(map(len, prompts))
    longest = max(map(len, prompts)) + config.max_new_tokens
    return any(shortest < limit < longest for limit in model.base.limits[:-1])


def _renumber(watch: Callable[[int, Step], None] | None, index: int) -> Callable[[int, Step], None] | None:
    return None if watch is None else lambda _, step: watch(index, step)
