"""Continuous batching: requests join and leave between steps, each in slots of its own.

A step is either a prefill, of those that waited longest, in a session of their own which then joins the running one, or
a step of the running one. The two take turns, so that neither new answers nor those being written wait for long.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from threading import Lock

import torch
from torch import Tensor

from foresay.decoding.config import DecodeConfig, QueueConfig
from foresay.decoding.generate import check_prompts, prepare
from foresay.decoding.live import GenerationHooks, LiveSequence, PlannerSource
from foresay.decoding.planners import TENTH, Planners
from foresay.decoding.prefix_cache import MIB, Prefix, PrefixCache
from foresay.decoding.requests import Request, RequestProgress
from foresay.decoding.sampling.grammar import Constraint
from foresay.decoding.sampling.per_request import Mixed, Rule
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.sampling.recorded import Recorded, TokenScores
from foresay.decoding.session import Session
from foresay.decoding.steps import Step
from foresay.foundation.errors import BusyError, ConfigError, PromptError
from foresay.models.base.cache import SlotCache
from foresay.models.drafting import DraftingModel

READ_AT_ONCE = 128
"""Rows of a prompt that are unembedded at once for those who ask."""


class TooLong(PromptError):
    """A prompt and the answer it wants that have no room together."""


@dataclass(frozen=True, slots=True)
class _Running:
    request: Request
    record: TokenScores | None
    cached: int = 0
    """Tokens of the prompt that were not read again."""
    constraint: Constraint | None = None


class Engine:
    """Answers that come and go, on one model and in one layout.

    `step` and `measure` are for one thread; everything else may be called from any. `planners` choose the layout of
    each step where the settings say `planned`.
    """

    def __init__(
        self,
        model: DraftingModel,
        config: DecodeConfig,
        queue: QueueConfig,
        planners: PlannerSource | None = None,
    ) -> None:
        """Raises ConfigError for texts longer than the base can serve together."""
        self.longest = queue.max_length or model.base.limits[0]
        if self.longest > model.base.limits[0]:
            raise ConfigError(
                f"max_length is {queue.max_length} and texts of this base can share steps up to "
                f"{model.base.limits[0]} tokens; give at most that, or 0"
            )
        prepare(model, config)
        self.model, self.config, self.queue, self.planners = model, config, queue, planners
        self.prefixes = PrefixCache(queue.prefix_cache * MIB)
        self._stop_tokens = frozenset(model.base.stop_tokens)
        self._tickets, self._lock = count(), Lock()
        self._waiting: deque[tuple[int, Request]] = deque()
        self._running: dict[int, _Running] = {}
        self._cancelled: set[int] = set()
        self._prefilled = False
        self._session: Session | None = None

    @classmethod
    def open(cls, model: DraftingModel, config: DecodeConfig, queue: QueueConfig) -> "Engine":
        """An engine that is ready at once: where its layout is `planned` and its steps were never measured, they are
        plain ones until `measure` has done so, or `step` has on the way."""
        prepare(model, config)
        if config.layout != "planned":
            return cls(model, config, queue)
        planners = Planners(model, config.masks, TENTH)
        planners.expect([1 << power for power in range((queue.sequences - 1).bit_length() + 1)])
        return cls(model, config, queue, planners)

    def share_prefixes(self, other: "Engine") -> None:
        """Keep what is kept between requests with another engine of the same model, which the same thread steps."""
        self.prefixes = other.prefixes

    def measure(self) -> bool:
        """While nobody waits: measure a little of what steps cost; false: there is nothing left to measure."""
        return isinstance(self.planners, Planners) and self.planners.measure()

    @property
    def session(self) -> Session:
        """Those that run; made anew after `abort`."""
        if self._session is None:
            self._session = self._empty()
        return self._session

    @property
    def running(self) -> int:
        """Answers being written."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """There is something to do."""
        return bool(self._running or self._waiting)

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Line up, all or none: a ticket for each. Raises PromptError, or BusyError when the queue is full."""
        for request in requests:
            self._check(request)
        places = self.queue.waiting + self.queue.sequences
        if len(requests) > places:
            raise PromptError(f"{len(requests)} answers were asked for and there is room for {places}; ask for fewer")
        with self._lock:
            if len(self._waiting) + len(self._running) + len(requests) > places:
                raise BusyError(f"{len(self._waiting)} answers are waiting already; try again later")
            tickets = list(islice(self._tickets, len(requests)))
            self._waiting.extend(zip(tickets, requests))
        return tickets

    def check_length(self, length: int, max_tokens: int) -> None:
        """Raise TooLong for a prompt of so many tokens and an answer of as many as may come."""
        left = self.longest - length
        if left < 1:
            raise TooLong(
                f"the prompt has {length} tokens, and prompt and answer may have {self.longest} together; shorten it"
            )
        if not 1 <= max_tokens <= left:
            raise TooLong(
                f"{max_tokens} tokens were asked for after a prompt of {length}, and prompt and answer may have "
                f"{self.longest} together; shorten the prompt, or ask for 1 to {left}"
            )

    def cancel(self, tickets: Sequence[int]) -> None:
        """Nobody wants these answers any more: their places are free before the next step."""
        with self._lock:
            self._waiting = deque(entry for entry in self._waiting if entry[0] not in tickets)
            self._cancelled |= self._running.keys() & set(tickets)

    def abort(self) -> list[int]:
        """Forget every answer, waiting or being written, after a step that failed too: their tickets.

        The next step makes a session anew, and fails where that does.
        """
        with self._lock:
            tickets = [*self._running, *(ticket for ticket, _ in self._waiting)]
            self._running, self._waiting, self._cancelled = {}, deque(), set()
            self._session = None
        return tickets

    def step(self) -> list[RequestProgress]:
        """One forward of the base, for the new or for all that are running: what it gave each of them."""
        self._forget()
        newcomers = self._admit()
        session = self._begin(newcomers) if newcomers else self.session
        if not session.live:
            return []
        progress = [self._tell(session, ticket, step) for ticket, step in session.step()]
        if newcomers:
            for place, live in enumerate(session.live):
                self._keep(session.cache, place, live)
            self.session.join(session)
        if isinstance(self.planners, Planners):
            self.planners.between_steps(self.session.hold)
        return progress

    def _check(self, request: Request) -> None:
        self.check_length(len(request.prompt), request.max_tokens)
        check_prompts(self.model, [request.prompt], self.config)

    def _empty(self) -> Session:
        chooser = Recorded(Mixed(), [])
        return Session.empty(self.model, self.config, chooser, self._how(), self.queue.sequences, self.longest)

    def _how(self) -> GenerationHooks:
        none: frozenset[int] = frozenset()  # each request has its own
        return GenerationHooks(
            stop=self._stops, stop_tokens=none, leaves=self._keep, reads=self._reads, planner=self.planners
        )

    def _keep(self, cache: SlotCache, place: int, live: LiveSequence) -> None:
        """What was read or written of a text, for prompts that begin with it."""
        self.prefixes.keep(cache, place, live.cached)

    def _prefix_of(self, request: Request) -> Prefix:
        """What need not be read of a prompt: all but its end, which makes the first drafts, by rows of few shapes."""
        read = self.model.config.drafts + 2
        known = () if request.reads else request.prompt[: max(len(request.prompt) - read, 0)]
        return self.prefixes.find(known, len(self.session.cache.layers))

    def _reads(self, sequences: Sequence[LiveSequence], real: int, states: Tensor) -> None:
        """Tell those that ask what the base thought of their prompts."""
        for place, live in enumerate(sequences):
            reads = self._running[live.index].request.reads
            if reads is not None and not live.steps:
                for rows in torch.split(states[place, real - live.row.fresh : real - 1], READ_AT_ONCE):
                    reads(self.model.base.unembed(rows).float())

    def _stops(self, ticket: int, ids: list[int]) -> bool:
        request = self._running[ticket].request
        ignored = self.config.ignore_stop or request.limits.ignore_stop
        if ids[-1] in self._stop_tokens and not ignored:
            return True
        return request.stop is not None and request.stop(ids[-1])

    def _forget(self) -> None:
        """Give up the places of the cancelled."""
        with self._lock:
            cancelled, self._cancelled = self._cancelled, set()
            for ticket in cancelled & self._running.keys():
                self.session.drop(ticket)
                del self._running[ticket]

    def _admit(self) -> list[int]:
        """Tickets of those whose turn it is: the ones that waited longest, as many as one prefill should hold."""
        with self._lock:
            self._prefilled = not (self._prefilled and self.session.live)
            free = self.queue.sequences - len(self._running) if self._prefilled else 0
            newcomers: list[int] = []
            longest = 0
            for ticket, request in islice(self._waiting, free):
                longest = max(longest, len(request.prompt))
                if newcomers and (len(newcomers) + 1) * longest > self.queue.prefill_tokens:
                    break
                newcomers.append(ticket)
            for _ in newcomers:
                ticket, request = self._waiting.popleft()
                self._running[ticket] = _Running(request, TokenScores() if request.logits else None)
            return newcomers

    def _begin(self, tickets: Sequence[int]) -> Session:
        """A session of newcomers, with no more slots than their prompts need."""
        running = [self._running[ticket] for ticket in tickets]
        requests = [some.request for some in running]
        rules = [self._rule(request) for request in requests]
        rng = SeededNumbers.seeded([request.sample.seed for request in requests])
        chooser = Recorded(Mixed(rules, rng), [some.record for some in running])
        prompts = [request.prompt for request in requests]
        config = replace(self.config, max_new_tokens=1, graphs=False)
        session = Session(self.model, prompts, config, chooser, self._how(), tickets)
        session.joins = self.session.live
        prefixes = list(map(self._prefix_of, requests))
        if any(prefix.blocks for prefix in prefixes):
            session.go_on_from(prefixes)
        for ticket, some, prefix, rule in zip(tickets, running, prefixes, rules):
            self._running[ticket] = replace(some, cached=prefix.tokens, constraint=rule.constraint)
        for live, request in zip(session.live, requests):
            live.room = request.max_tokens
        return session

    def _rule(self, request: Request) -> Rule:
        return Rule.of(request.sample, request.penalties, len(request.prompt), request.limits, self._stop_tokens)

    def _tell(self, session: Session, ticket: int, step: Step) -> RequestProgress:
        running = self._running[ticket]
        record, cached = running.record, 0 if step.layout else running.cached
        logits = () if record is None else tuple(record.logits[: len(step.tokens)])
        if record is not None:
            record.logits.clear()
            record.scores.clear()
        done = session.done.pop(ticket, None)
        if done is None:
            return RequestProgress(ticket, step, None, logits, cached_tokens=cached)
        del self._running[ticket]
        failure = running.constraint.failure(done.tokens) if running.constraint else ""
        return RequestProgress(ticket, step, "error" if failure else done.ended, logits, failure, cached)
