"""Answers while they are made: streams that end when nobody reads on."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from foresay.serving.openai.api_errors import ApiError, failed, stopping, timed_out
from foresay.serving.openai.replies import Choice, Reply, Usage
from foresay.serving.openai.schema import StreamOptions
from foresay.serving.openai.service import Service
from foresay.serving.openai.worker import Event, Listener

T = TypeVar("T")
GONE = 499
"""Nobody reads this status: the client went away."""


class EventStream(StreamingResponse):
    """Server-sent events of one request, whose answers end when nobody reads on."""

    def __init__(self, service: Service, listener: Listener, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._service, self._listener = service, listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.worker.cancel(self._listener)


@dataclass(slots=True)
class Talk:
    """One request that is being answered."""

    listener: Listener
    reply: Reply
    usage: Usage
    deadline: float
    """By the event loop's clock."""

    async def next(self) -> Event:
        """The next event. Raises ApiError in place of an answer that ended before its time."""
        try:
            async with asyncio.timeout_at(self.deadline):
                event = await self.listener.next()
        except TimeoutError:
            raise timed_out() from None
        if event.ended in ("abort", "error"):
            if event.failure:
                raise ApiError(400, event.failure, code="answer_broken_off")
            raise stopping() if event.ended == "abort" else failed()
        self.usage.add(event)
        return event

    async def whole(self) -> dict[str, Any]:
        """The reply in one piece."""
        choices = [Choice() for _ in self.listener.answers]
        while any(choice.ended is None for choice in choices):
            event = await self.next()
            choices[event.choice].add(event)
        return self.reply.whole(choices, self.usage)

    async def stream(self, event: Event, options: StreamOptions) -> AsyncIterator[str]:
        """Server-sent events, from the first event on."""
        shown, going = [-1] * len(self.listener.answers), len(self.listener.answers)
        counted = self.usage if options.continuous_usage_stats else None
        while True:
            yield sse(self.reply.chunk(event, counted, shown[event.choice]))
            shown[event.choice] = max(shown[event.choice], 0) + self.reply.length(event, shown[event.choice] < 0)
            going -= event.ended is not None
            if not going:
                break
            try:
                event = await self.next()
            except ApiError as error:
                yield sse(error.json())
                return
        if options.include_usage:
            yield sse(self.reply.last(self.usage))
        yield "data: [DONE]\n\n"


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ApiError when the client goes away first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    wanted, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((wanted, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ApiError(GONE, "the client went away")
        return wanted.result()
    finally:
        wanted.cancel()
        leaving.cancel()


def sse(content: dict[str, Any]) -> str:
    """`content` as a server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
