"""A batch of sequences that go on step by step: plan, see, verify, keep, draft."""

from collections.abc import Sequence

import torch
from torch import Tensor

from foresay.decoding.config import DecodeConfig
from foresay.decoding.live import GenerationHooks, LiveSequence, unread
from foresay.decoding.planning.draft_tree import tree_for
from foresay.decoding.planning.plan import Aligned, PendingRows, Plan, plan
from foresay.decoding.planning.planner import LOOKUP, PLAIN, PROBE_MASKS, Entry, Planner
from foresay.decoding.prefix_cache import Prefix
from foresay.decoding.sampling.chooser import Chooser, Drafts, Greedy
from foresay.decoding.sampling.draft import Blocks
from foresay.decoding.sampling.verify import DraftsToVerify, Verification
from foresay.decoding.step_graphs import StepGraphs
from foresay.decoding.steps import Generation, Step
from foresay.models.base.model import Rows
from foresay.models.base.transfer import to_device
from foresay.models.drafting import DraftingModel
from foresay.models.layout.call import Call
from foresay.models.layout.tree import Tree


class Session:
    """Sequences of a batch in their slots. Owns every index of the decode loop."""

    def __init__(
        self,
        model: DraftingModel,
        prompts: Sequence[Sequence[int]],
        config: DecodeConfig,
        chooser: Chooser | None = None,
        how: GenerationHooks | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """`indices`: what `how` and the results call the prompts; None: by their place."""
        how = how or GenerationHooks()
        self.model, self.config, self.chooser, self.stop = model, config, chooser or Greedy(), how.stop
        self.planners, self.leaves, self.reads = how.planner, how.leaves, how.reads
        self.planner: Planner | None = None
        self.joins: Sequence[LiveSequence] = ()  # whose steps its drafts will be verified in, and would widen
        self.entry = PLAIN
        own = frozenset() if config.ignore_stop else frozenset(model.base.stop_tokens)
        self.stops = own if how.stop_tokens is None else how.stop_tokens
        self.done: dict[int, Generation] = {}
        context, longest = model.base.context, max(map(len, prompts), default=0)
        rooms = [min(config.max_new_tokens, context - len(prompt)) for prompt in prompts]
        self.live = [
            LiveSequence(index, PendingRows(0, len(prompt), 0), room, list(prompt))
            for index, prompt, room in zip(indices or range(len(prompts)), prompts, rooms)
        ]
        self.tree = tree_for(model, config)
        # Masks after the deepest draft of a tree would never be read.
        masks = min(config.masks or model.config.drafts, self.tree.depths[-1])
        self.fixed = None if config.layout == "planned" else Entry(config.layout, masks)
        most = max(self.tree.drafts, PROBE_MASKS)
        self.spare = max((most + 1) * (masks + 1), LOOKUP.drafts + 1)
        self.masks = 0 if config.layout == "plain" else masks
        self.cache = model.cache(longest + max(rooms, default=0) + self.spare, self.masks)
        self.graphs: StepGraphs | None = None
        self._lasting = False
        if prompts:
            self._borrow(len(prompts), lasting=False)
        self.pending = Drafts(unread(self.live, model.base.device))

    @classmethod
    def empty(
        cls,
        model: DraftingModel,
        config: DecodeConfig,
        chooser: Chooser,
        how: GenerationHooks,
        sequences: int,
        tokens: int,
    ) -> "Session":
        """Nobody's session yet: others join it, at most so many sequences, of at most so many tokens each."""
        session = cls(model, (), config, chooser, how)
        session.cache = model.cache(tokens + session.spare, session.masks, sequences)
        session._borrow(sequences, lasting=True)
        return session

    def go_on_from(self, prefixes: Sequence[Prefix]) -> None:
        """Before the first step: read only what follows these beginnings of the prompts, whose K/V was kept."""
        rows = [PendingRows(some.tokens, len(live.ids) - some.tokens, 0) for some, live in zip(prefixes, self.live)]
        # The rows of a call stand after the longest beginning too, where others read more than that one does.
        most = max(row.past for row in rows) + max(row.fresh for row in rows)
        self.cache = self.model.cache(most + max(live.room for live in self.live) + self.spare, self.masks)
        for place, (prefix, live, row) in enumerate(zip(prefixes, self.live, rows)):
            prefix.fill(self.cache, place, len(self.live))
            live.row = row
        self.pending = Drafts(unread(self.live, self.model.base.device))

    def join(self, other: "Session") -> None:
        """Take over the live sequences of another session, which is not to go on: they go on here, after one's own.

        Both have the same model and settings. Its cache needs no more slots than this one's.
        """
        if not other.live:
            return
        self.cache.take(other.cache, len(self.live), len(other.live))
        self.pending = self.pending.followed_by(other.pending) if self.live else other.pending
        self.chooser.join(other.chooser)
        self.live += other.live

    def drop(self, index: int) -> None:
        """End a sequence as it is; its place is free at once."""
        going = [place for place, live in enumerate(self.live) if live.index != index]
        if len(going) < len(self.live):
            place = next(place for place, live in enumerate(self.live) if live.index == index)
            self.leaves(self.cache, place, self.live[place])
            self.pending = self.pending.select(self._keep_only(going))

    @torch.no_grad()
    def step(self) -> list[tuple[int, Step]]:
        """One forward of the base for every live sequence: (prompt index, step) of each."""
        with self.model.decoding():
            return self._step()

    def _step(self) -> list[tuple[int, Step]]:
        plan = self._plan()
        replayed = None if self.graphs is None else self.graphs.step(plan, self.pending, self.chooser)
        if replayed is None or any(faulty for _, _, _, faulty, *_ in replayed[0]):
            return self._compute(plan)
        report, pending = replayed
        kept = self._keep(plan, report)
        order = self._drop_finished()
        if self.live:
            sizes = [plan.layout.size_after(live.anchor) for live in self.live]
            self._go_on(plan, pending if order is None else pending.select(order), sizes)
        return kept

    def _compute(self, plan: Plan) -> list[tuple[int, Step]]:
        """A step, kernel by kernel."""
        aligned = plan.aligned(self.pending.tokens.device)
        self.chooser.begin(1 + plan.judged + self.masks, aligned.past.device)
        ids = aligned.tokens(self.pending.tokens)
        seen = self._see(plan, aligned, ids)
        self.reads(self.live, plan.layout.real, seen.states)
        logits = seen.logits[:, plan.unembedded - plan.judged - 1 :]
        asked = self._asked(plan, aligned, ids)
        verdict = self.chooser.verify(logits, asked)
        if not plan.layout.tree.is_chain:
            # What stays of a tree lies scattered; a root whose drafts branch is the call's first row.
            self.cache.move(aligned.past, aligned.past[:, None] + verdict.path)
        report = verdict.report().tolist()
        if any(faulty for _, _, _, faulty, *_ in report):
            self.chooser.explain(logits, asked)
        kept = self._keep(plan, report)
        self._draft(plan, seen, verdict)
        return kept

    def _see(self, plan: Plan, aligned: Aligned, ids: Tensor) -> Rows:
        seen = None if self.graphs is None else self.graphs.see(plan, self.pending, self.chooser)
        past = [row.past for row in plan.rows]
        call = Call(plan.layout, aligned.past, aligned.pads, max(past), min(past))
        return seen or self.model.see(ids, call, self.cache, plan.unembedded)

    def _borrow(self, sequences: int, lasting: bool) -> None:
        """Take a cache whose steps are recorded in place of one's own, where steps are; `lasting`: for good."""
        if self.model.recorder is not None and self.config.graphs:
            self.graphs = StepGraphs.lent(self.model, self, self.cache.slots, self.masks, sequences)
            self.cache, self._lasting = self.graphs.cache, lasting

    def _plan(self) -> Plan:
        entry = self.entry = self._entry()
        tree = self.tree if entry.layout == "tree" else self.tree.first(entry.drafts)
        tree = Tree.chain(entry.lookup) if entry.lookup else tree
        return plan([live.row for live in self.live], entry, tree, self.model.base.limits)

    def _entry(self) -> Entry:
        """The layout of the next step."""
        if self.fixed is not None:
            return self.fixed
        assert self.planners is not None, "planned decoding needs a planner"
        batch = [*self.live, *self.joins]
        self.planner = self.planners.at(len(batch), max(live.row.past for live in batch))
        if self.planner is None:
            return PLAIN
        entry = self.planner.choose([live.look(self.planner, self.config.prompt_lookup) for live in self.live])
        self.draft_instead([live.looked_up for live in self.live])
        return entry

    def hold(self) -> None:
        """Keep what is pending, though another session replays recorded steps before the next one."""
        if self.graphs is not None:
            self.pending = self.pending.clone()

    def draft_instead(self, found: Sequence[Sequence[int]]) -> None:
        """Let the next step verify these tokens in place of a sequence's own drafts, for each that has any."""
        if not any(found):
            return
        self.pending = self.pending.replaced(found)
        for live, tokens in zip(self.live, found):
            if tokens:
                live.row = PendingRows(live.row.past, 1 + len(tokens), len(tokens))

    def _asked(self, plan: Plan, aligned: Aligned, ids: Tensor) -> DraftsToVerify:
        counts = tuple(row.drafted for row in plan.rows)
        judged = ids[:, plan.layout.real - plan.judged - 1 :]
        q = aligned.distributions(self.pending.q) if self.pending.q is not None and plan.judged else None
        return DraftsToVerify(judged, counts, plan.layout.tree, q, [live.ids for live in self.live], aligned.drafts)

    def _keep(self, plan: Plan, report: list[list[int]]) -> list[tuple[int, Step]]:
        """Commit the slots of what was accepted, cut at a stop; `report` is the step's one look at the device."""
        kept, depths = [], plan.layout.tree.depths
        self.chooser.hear([accepted for accepted, *_ in report])
        for live, row, (accepted, last, used, _, *tokens) in zip(self.live, plan.rows, report):
            said = self._cut(live, tokens[: accepted + 1])
            looked_up = row.drafted if live.looked_up else 0
            layout = self.entry.label if row.past and live.steps else ""
            step = Step(tuple(said), row.drafted, min(accepted, len(said)), depths[row.drafted], looked_up, layout)
            live.steps.append(step)
            live.room -= len(said)
            live.row = PendingRows(row.past + row.fresh - row.drafted + accepted, 1, 0)
            live.anchor, live.used = plan.layout.real - 1 - plan.judged + last, used
            kept.append((live.index, step))
            if self.planner is not None and live.outlook is not None:
                self.planner.observe(live.outlook, row.drafted, accepted, said)
        return kept

    def _cut(self, live: LiveSequence, tokens: list[int]) -> list[int]:
        """Append the tokens to the text, up to a stop and within the room; say which were kept."""
        for place, token in enumerate(tokens[: live.room], 1):
            live.ids.append(token)
            if token in self.stops or (self.stop is not None and self.stop(live.index, live.ids)):
                live.stopped = True
                return tokens[:place]
        return tokens[: live.room]

    def _draft(self, plan: Plan, seen: Rows, verdict: Verification) -> None:
        """Drop the finished, draft for the others from the block after their last accepted row."""
        order = self._drop_finished()
        if not self.live:
            return
        if order is not None:
            chosen = to_device(order, seen.states.device)
            seen, verdict = seen.select(chosen), verdict.select(chosen)
        sizes = [plan.layout.size_after(live.anchor) for live in self.live]
        pending = self._draft_after(plan, seen, verdict, sizes) if max(sizes) else Drafts(verdict.newest[:, None])
        self._go_on(plan, pending, sizes)

    def _drop_finished(self) -> list[int] | None:
        """The order of those that go on; None: all do, where they are."""
        going = [place for place, live in enumerate(self.live) if not self._finish(place, live)]
        if len(going) == len(self.live):
            return None
        if not going and self.graphs is not None and not self._lasting:
            self.graphs.give_back()
        return self._keep_only(going)

    def _go_on(self, plan: Plan, pending: Drafts, sizes: Sequence[int]) -> None:
        """The next step of those that live is to verify `pending`, made from blocks of these sizes."""
        # A recorded step drafts whether there are blocks or not; what is made of none was not drawn from anything.
        self.pending = pending = pending if max(sizes) else Drafts(pending.tokens[:, :1])
        drafts = {size: plan.tree.within(size).drafts for size in set(sizes)}
        for live, size in zip(self.live, sizes):
            live.row = PendingRows(live.row.past, 1 + drafts[size], drafts[size])
            live.used += 0 if pending.q is None else size
        self.chooser.settle([live.used for live in self.live])
        self._recompute()

    def _keep_only(self, going: list[int]) -> list[int]:
        """Drop all but these sequences; the last ones fill the gaps, which moves fewest. Returns the new order."""
        gaps = [place for place in range(len(going)) if place not in going]
        fillers = [place for place in going if place >= len(going)]
        moved = dict(zip(gaps, fillers))
        order = [moved.get(place, place) for place in range(len(going))]
        self.live = [self.live[place] for place in order]
        self.cache.select(order)
        self.chooser.select(order)
        return order

    def _draft_after(self, plan: Plan, seen: Rows, verdict: Verification, sizes: Sequence[int]) -> Drafts:
        """Draft from the blocks of the anchors: the newest tokens and the drafts after them."""
        anchors = verdict.last + (plan.layout.real - 1 - plan.judged)
        rows = plan.layout.draw(anchors.device).block_rows[anchors][:, : max(sizes)]
        (states, guesses), texts = seen.block(rows), [live.ids for live in self.live]
        blocks = Blocks(states, verdict.newest, plan.tree, guesses, verdict.used, sizes, texts)
        drafts = self.chooser.draft(self.model, blocks)
        return Drafts(torch.cat((verdict.newest[:, None], drafts.tokens), dim=1), drafts.q)

    def _recompute(self) -> None:
        """Where the base's own decoding computes its cache anew, do so: the whole text is one prefill again."""
        base = self.model.base
        if not (base.recomputes and self.live[0].row.past in base.limits[:-1]):
            return
        assert len(self.live) == 1, "sequences on both sides of a limit go alone"
        live = self.live[0]
        self.pending = Drafts(torch.tensor([live.ids], device=base.device))
        live.row = PendingRows(0, len(live.ids), 0)

    def _finish(self, place: int, live: LiveSequence) -> bool:
        """Move a sequence that stopped or used up its room to `done`."""
        if live.stopped or live.room == 0:
            self.leaves(self.cache, place, live)
            self.done[live.index] = Generation(tuple(live.steps), "stop" if live.stopped else "length")
            return True
        return False
