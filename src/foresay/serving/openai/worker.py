"""The thread that runs the engines, and how what they say gets to those who asked."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Condition, Thread
from time import monotonic
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foresay.decoding.engine import Engine
from foresay.decoding.requests import Request, RequestProgress
from foresay.decoding.steps import Step
from foresay.serving.openai.prometheus import Course, Metrics
from foresay.serving.openai.stop_strings import Answer
from foresay.serving.openai.tools import ToolCall, ToolFormat, ToolReader

LOG = logging.getLogger("foresay")
Ended = Literal["stop", "length", "tool_calls", "abort", "error"]
"""`abort`: nobody wanted it any more, or the server went down; `error`: a step failed."""


@dataclass(frozen=True, slots=True)
class Likely:
    """A token that was said, and those that were likeliest in its place; natural logarithms of the base's chances."""

    token: int
    logprob: float | None
    """None: nothing stands before it."""
    others: tuple[tuple[int, float], ...]
    rank: int = 1
    """1: none was likelier."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a step gave one of the answers to a request."""

    choice: int
    text: str = ""
    step: Step = field(default_factory=lambda: Step((), 0, 0, 0))
    ended: Ended | None = None
    likely: tuple[Likely, ...] = ()
    cached_tokens: int = 0
    """Of its first step: tokens of the prompt that the prefix cache had."""
    calls: tuple[ToolCall, ...] = ()
    prompt: tuple[Likely, ...] = ()
    """Of its first step, where that was asked for: the prompt's tokens but the first."""
    failure: str = ""
    """Why it ended in an error, where that was the request's own fault."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the answers to a request are read for."""

    stops: Sequence[str] = ()
    top: int | None = None
    """Likely tokens to name beside each token; None: none, nor chances."""
    prompt_top: int | None = None
    """The same for tokens of the prompt."""
    least: int = 0
    """Tokens before stop strings count."""
    tools: ToolFormat | None = None
    """How calls of tools are written; None: none are read."""
    many: bool = True
    """More than one call is wanted."""
    named: bool = False
    """A call was asked for by its name, so that it is no reason to end."""


class Listener:
    """The answers to one request, on their way from the engine's thread to the event loop that asked."""

    def __init__(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request], wanted: Wanted
    ) -> None:
        self.engine, self.wanted = engine, wanted
        special = wanted.tools is not None and wanted.tools.special
        self.answers = answers = [Answer(tokenizer, wanted.stops, wanted.least, special) for _ in requests]
        self.readers = [None if wanted.tools is None else ToolReader(wanted.tools, wanted.many) for _ in requests]
        self.prompts: list[list[Likely]] = [[] for _ in requests]
        self.tickets: list[int] = []
        self.open = len(answers)
        self.courses = [Course(len(request.prompt)) for request in requests]
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def reader(self, choice: int, prompt: Sequence[int]) -> Callable[[Tensor], None] | None:
        """Takes the logits of a prompt's tokens, where somebody asks for them."""
        top, own = self.wanted.prompt_top, self.prompts[choice]
        if top is None:
            return None

        def read(logits: Tensor) -> None:
            said = prompt[1 + len(own) : 1 + len(own) + len(logits)]
            own.extend(_likely(said, logits.unbind(), top))

        return read

    def put(self, event: Event) -> None:
        """Hand over, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed, and with it whoever asked
            LOG.debug("an answer came when nobody was there any more")

    def with_calls(self, event: Event) -> Event:
        """The calls of tools taken out of a step's text."""
        reader = self.readers[event.choice]
        if reader is None or event.ended == "error":
            return event
        text, calls = reader.read(event.text, event.ended)
        event = replace(event, text=text, calls=tuple(calls))
        if reader.cut:
            cure = "the answer reached max_tokens inside a tool call; ask for more tokens"
            return replace(event, ended="error", failure=cure)
        called = event.ended == "stop" and reader.calls and not self.wanted.named
        return replace(event, ended="tool_calls") if called else event

    async def next(self) -> Event:
        """The next event of any of the answers."""
        return await self._events.get()


class Worker(Thread):
    """Runs engines in turns, a step each, while there is something to do; else measures what steps cost, bit by bit."""

    def __init__(self, engines: Sequence[Engine], tokenizer: PreTrainedTokenizerBase, metrics: Metrics) -> None:
        super().__init__(name="foresay-steps", daemon=True)
        self._engines, self._tokenizer, self._metrics = engines, tokenizer, metrics
        self._wake = Condition()
        self._closing = self._measured = False
        self._listeners: dict[tuple[Engine, int], tuple[Listener, int]] = {}

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer."""
        return any(engine.busy for engine in self._engines)

    def ask(self, engine: Engine, requests: Sequence[Request], wanted: Wanted) -> Listener:
        """Line up requests whose answers belong together. Raises PromptError, BusyError."""
        listener = Listener(engine, self._tokenizer, requests, wanted)
        watched = [
            replace(
                request,
                stop=answer.hears if answer.watched else None,
                logits=wanted.top is not None,
                reads=listener.reader(choice, request.prompt),
            )
            for choice, (request, answer) in enumerate(zip(requests, listener.answers))
        ]
        with self._wake:
            listener.tickets = engine.submit(watched)
            for choice, ticket in enumerate(listener.tickets):
                self._listeners[engine, ticket] = (listener, choice)
            self._wake.notify()
        for request in requests:
            self._metrics.asked(len(request.prompt), request.max_tokens)
        return listener

    def cancel(self, listener: Listener) -> None:
        """Nobody listens any more; does nothing for answers that have ended."""
        with self._wake:
            open_ends = [ticket for ticket in listener.tickets if (listener.engine, ticket) in self._listeners]
            listener.engine.cancel(open_ends)
            ended = [self._listeners.pop((listener.engine, ticket)) for ticket in open_ends]
            self._wake.notify()
        for _, choice in ended:
            self._count_end(listener, choice, "abort")

    def abort(self) -> None:
        """End all answers as they are, and tell those who wait."""
        with self._wake:
            listeners = {id(listener): listener for listener, _ in self._listeners.values()}.values()
            told = list(self._listeners.values())
        for listener in listeners:
            self.cancel(listener)
        for listener, choice in told:
            listener.put(Event(choice, ended="abort"))

    def close(self) -> None:
        """Stop once the step that is running is over."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self.join()

    def run(self) -> None:
        """Steps, as long as there is something to do."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self.busy or not self._measured)
                if self._closing:
                    return
            if not self.busy:
                self._measure()
            for engine in self._engines:
                if engine.busy:
                    self._step(engine)

    def _measure(self) -> None:
        """A few steps of what is not known yet, while nobody waits for an answer."""
        try:
            self._measured = not any([engine.measure() for engine in self._engines])
        except Exception:
            LOG.exception("what steps cost could not be measured, so they stay as they are")
            self._measured = True

    def _step(self, engine: Engine) -> None:
        begun, self._measured = monotonic(), False
        try:
            progress = engine.step()
        except Exception:
            LOG.exception("a step failed, and with it every answer that was being written")
            for ticket in engine.abort():
                with self._wake:
                    listener, choice = self._listeners.pop((engine, ticket), (None, 0))
                if listener is not None:
                    self._fail(listener, choice)
            return
        if progress:
            self._metrics.forward(sum(len(told.step.tokens) for told in progress))
        for told in progress:
            with self._wake:
                listener, choice = self._listeners.get((engine, told.ticket), (None, 0))
                if told.ended:
                    self._listeners.pop((engine, told.ticket), None)
            if listener is None:
                continue
            try:
                self._tell(listener, choice, told, begun)
            except Exception:
                LOG.exception("a step could not be told, and with it ends its answer")
                engine.cancel([told.ticket])
                with self._wake:
                    waits = self._listeners.pop((engine, told.ticket), None) is not None or told.ended is not None
                if waits:
                    self._fail(listener, choice)

    def _fail(self, listener: Listener, choice: int) -> None:
        # Whoever waits is told first: to count must not keep it from them.
        listener.put(Event(choice, ended="error"))
        self._count_end(listener, choice, "error")

    def _tell(self, listener: Listener, choice: int, told: RequestProgress, begun: float) -> None:
        tokens = told.step.tokens
        course = listener.courses[choice]
        if not course.first:
            self._metrics.looked_up(course, told.cached_tokens if listener.engine.prefixes.budget else None)
        self._metrics.step(course, told.step, begun)
        text = listener.answers[choice].tell(tokens, told.ended is not None)
        # A token that stops an answer is no part of it.
        said = tokens[:-1] if told.ended == "stop" else tokens
        top = listener.wanted.top
        likely = () if top is None or not said else _likely(said, told.logits, top)
        if told.ended:
            self._count_end(listener, choice, told.ended)
        prompt, listener.prompts[choice] = tuple(listener.prompts[choice]), []
        event = Event(choice, text, told.step, told.ended, likely, told.cached_tokens, (), prompt, told.failure)
        listener.put(listener.with_calls(event))

    def _count_end(self, listener: Listener, choice: int, reason: Ended) -> None:
        self._metrics.ended(listener.courses[choice], reason)


def _likely(tokens: Sequence[int], logits: Sequence[Tensor], top: int) -> tuple[Likely, ...]:
    chances = torch.stack(tuple(logits)).log_softmax(dim=-1)
    top_chances = chances.topk(min(top, chances.shape[-1]), dim=-1)
    own = chances.gather(1, torch.tensor([list(tokens)], device=chances.device).T)
    ranks = (chances > own).sum(dim=1).add(1).tolist()
    rows = zip(tokens, own[:, 0].tolist(), top_chances.indices.tolist(), top_chances.values.tolist(), ranks)
    return tuple(Likely(token, chance, tuple(zip(*best)), rank) for token, chance, *best, rank in rows)
