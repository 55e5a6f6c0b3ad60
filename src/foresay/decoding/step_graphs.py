"""Decode steps that are recorded once and replayed: see, verify, keep and draft of one shape as one CUDA graph.

A step of a few rows keeps a GPU busy for less time than the host takes to launch its thousand kernels one by one. The
shape of a step is its layout, a batch and a number of slots; both are rounded up, so that there are few. Sequences that
fill a batch up stand in places of the cache that nobody lives in, and slots that nothing lies in yet are not visible.
Where tokens are chosen in a way that the host takes part in, the forward alone is replayed.
"""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foresay.decoding.planning.plan import Aligned, Plan
from foresay.decoding.sampling.chooser import Chooser, Drafts
from foresay.decoding.sampling.draft import Blocks
from foresay.decoding.sampling.verify import DraftsToVerify
from foresay.models.base.cache import SMALLEST, SlotCache
from foresay.models.base.cuda_graphs import CannotRecordError, Recorder, Replay
from foresay.models.base.model import Rows
from foresay.models.base.transfer import to_device
from foresay.models.drafting import DraftingModel
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from foresay.models.layout.tree import Tree

MOST = 64
"""Shapes that are kept for a cache; the one that was not asked for longest goes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a recorded step is fixed to."""

    layout: Layout
    tree: Tree
    """How the drafts that it makes are linked."""
    batch: int
    slots: int
    """That attention is shown."""
    rule: Hashable = None
    """How tokens are chosen (`Chooser.rule`); None: the step ends with the forward."""
    drawn: torch.dtype | None = None
    """Dtype of the distributions that its drafts come with; None: they were not drawn by chance."""
    shortlist: int = 0
    compiled: bool = False

    @property
    def numbers(self) -> int:
        """Most random numbers that it takes of a sequence."""
        return 1 + self.layout.tree.drafts + max((block.size for block in self.layout.blocks), default=0)


class RecordedStep:
    """A step of one shape, on one cache."""

    def __init__(self, model: DraftingModel, cache: SlotCache, shape: Shape, chooser: Chooser) -> None:
        device, layout = model.base.device, shape.layout
        self.model, self.cache, self.shape = model, cache, shape
        self.table = torch.zeros(3, shape.batch, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(shape.batch, layout.real, dtype=torch.int64, device=device)
        self.numbers = torch.zeros(shape.batch, shape.numbers, dtype=torch.float64, device=device)
        self.q: Tensor | None = None
        if shape.drawn is not None:
            size = (shape.batch, layout.tree.drafts, model.base.vocabulary)
            self.q = torch.zeros(size, dtype=shape.drawn, device=device)
        self.chooser = chooser if shape.rule is None else chooser.recorded(self.numbers)
        self._replay: Replay | None = None
        self._slots: Tensor | None = None
        # The recording reads these where they lie, and caches may let go of them.
        self._drawn = layout.draw(device), layout.tree.draw(device), shape.tree.draw(device)

    def load(self, plan: Plan, pending: Drafts, numbers: Tensor | None) -> None:
        """Put in what the sequences bring: the places of the others in the batch are nobody's."""
        batch, device = len(plan.rows), self.table.device
        self.table[:, :batch].copy_(to_device(plan.table(), device), non_blocking=True)
        _fill(self.tokens, pending.tokens)
        if self.q is not None and pending.q is not None:
            _fill(self.q, pending.q)
        if numbers is not None:
            self.numbers[:batch].copy_(to_device(numbers, device), non_blocking=True)

    def run(self, recorder: Recorder, batch: int) -> tuple[Tensor, ...]:
        """The results of the first `batch` sequences, which hold until something else is replayed.

        The first time the step is recorded. Then it is computed more than once, which changes nothing: its rows go to
        the same slots, as does what is moved of them. Raises CannotRecordError.
        """
        if self._replay is None:
            self._replay = Replay(recorder, self._see if self.shape.rule is None else self._step)
            self._slots = self.cache.placement.slots
        assert self._slots is not None, "the call was placed when it was recorded"
        results = self._replay()
        self.cache.place(self._slots, self.shape.slots)
        return tuple(result[:batch] for result in results)

    def _call(self) -> tuple[Aligned, Tensor, Call]:
        aligned = Aligned.of(self.shape.layout, self.table, self.shape.layout.tree.is_chain)
        ids = aligned.tokens(self.tokens)
        return aligned, ids, Call(self.shape.layout, aligned.past, aligned.pads, slots_shown=self.shape.slots)

    def _see(self) -> tuple[Tensor, ...]:
        _, ids, call = self._call()
        seen = self.model.see(ids, call, self.cache, ids.shape[1])
        return (seen.logits, seen.states) if seen.guesses is None else (seen.logits, seen.states, seen.guesses)

    def _step(self) -> tuple[Tensor, ...]:
        """What the host reads (`Verdict.report`), what is pending for the next step, and what that was drawn from."""
        aligned, ids, call = self._call()
        layout = self.shape.layout
        seen = self.model.see(ids, call, self.cache, ids.shape[1])
        q = None if self.q is None else aligned.distributions(self.q)
        verdict = self.chooser.verify(seen.logits, DraftsToVerify(ids, (), layout.tree, q, (), aligned.drafts))
        if not layout.tree.is_chain:
            self.cache.move(call.past, call.past[:, None] + verdict.path)
        newest = verdict.newest
        if not layout.blocks:
            return verdict.report(), newest[:, None]
        rows = layout.draw(ids.device).block_rows[verdict.last]
        states, guesses = seen.block(rows)
        drafts = self.chooser.draft(self.model, Blocks(states, newest, self.shape.tree, guesses, verdict.used))
        drawn = () if drafts.q is None else (drafts.q,)
        return verdict.report(), torch.cat((newest[:, None], drafts.tokens), dim=1), *drawn


def _fill(kept: Tensor, states: Tensor) -> None:
    """Copy `states` (B, N, ...) to the front of `kept`; what does not fit is not asked for."""
    wide = min(kept.shape[1], states.shape[1])
    kept[: len(states), :wide].copy_(states[:, :wide])


class StepGraphs:
    """A cache, and the steps on it that were recorded."""

    def __init__(self, model: DraftingModel, recorder: Recorder, cache: SlotCache, masks: int, sequences: int) -> None:
        self.model, self.recorder, self.cache = model, recorder, cache
        self.masks, self.sequences = masks, sequences
        self._steps: OrderedDict[Shape, RecordedStep] = OrderedDict()
        self._weights = _addresses(model)
        self._user: weakref.ref[object] | None = None

    @classmethod
    def lent(cls, model: DraftingModel, user: object, slots: int, masks: int, sequences: int) -> "StepGraphs":
        """For `user`, with a cache of so many slots or more, for as many sequences: the model's own where it is free.

        It stays the user's as long as that lives and does not give it back.
        """
        recorder, kept = model.recorder, model.step_graphs
        assert recorder is not None, "somebody asked the model to record"
        batch = 1 << max(sequences - 1, 0).bit_length()
        if isinstance(kept, cls) and kept.free and kept._fits(slots, masks, batch):
            kept._forget_moved()
        else:
            slots = -(-slots // SMALLEST) * SMALLEST
            fresh = cls(model, recorder, model.cache(slots, masks, batch), masks, batch)
            if kept is None or kept.free:
                model.step_graphs = fresh
            kept = fresh
        kept._user = weakref.ref(user)
        return kept

    @property
    def free(self) -> bool:
        """Nobody decodes on it."""
        return self._user is None or self._user() is None

    def give_back(self) -> None:
        """Its user is done."""
        self._user = None

    def step(self, plan: Plan, pending: Drafts, chooser: Chooser) -> tuple[list[list[int]], Drafts] | None:
        """A whole step: what the verdict reported, and the drafts made; None where it cannot be replayed."""
        rule = chooser.rule
        results = None if rule is None else self._run(plan, pending, chooser, rule)
        if results is None:
            return None
        report, tokens, *q = results
        return report.tolist(), Drafts(tokens, q[0] if q else None)

    def see(self, plan: Plan, pending: Drafts, chooser: Chooser) -> Rows | None:
        """The forward of a step; None where it cannot be replayed."""
        results = self._run(plan, pending, chooser, None)
        return None if results is None else Rows(*results)

    def _run(self, plan: Plan, pending: Drafts, chooser: Chooser, rule: Hashable) -> tuple[Tensor, ...] | None:
        if not (plan.usual and self.cache.begun and self.model.recordable):
            return None
        shape = self._shape(plan, pending, rule)
        step = self._steps.get(shape) or RecordedStep(self.model, self.cache, shape, chooser)
        step.load(plan, pending, None if rule is None else chooser.numbers(shape.numbers))
        try:
            results = step.run(self.recorder, len(plan.rows))
        except CannotRecordError as reason:
            self.model.recordable = False
            warnings.warn(
                f"steps of this model cannot be recorded as CUDA graphs ({reason}), so the host launches every kernel: "
                "slower, with the same output; ask for no graphs to be rid of this warning",
                stacklevel=2,
            )
            return None
        self._steps[shape] = step
        self._steps.move_to_end(shape)
        if len(self._steps) > MOST:
            self._steps.popitem(last=False)
        return results

    def _shape(self, plan: Plan, pending: Drafts, rule: Hashable) -> Shape:
        layout, batch = plan.layout, len(plan.rows)
        used = max(row.past for row in plan.rows) + layout.rows
        drawn = None if rule is None or pending.q is None or not layout.tree.drafts else pending.q.dtype
        return Shape(
            layout=layout,
            tree=plan.tree,
            batch=1 << (batch - 1).bit_length(),
            slots=self.cache.bucket(used),
            rule=rule,
            drawn=drawn,
            shortlist=self.model.shortlist or 0,
            compiled=self.model.compiles,
        )

    def _fits(self, slots: int, masks: int, sequences: int) -> bool:
        return self.cache.slots >= slots and self.sequences >= sequences and self.masks == masks

    def _forget_moved(self) -> None:
        """Drop what was recorded on weights that lie elsewhere now."""
        now = _addresses(self.model)
        if now != self._weights:
            self._steps.clear()
            self._weights = now


def _addresses(model: nn.Module) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()))
