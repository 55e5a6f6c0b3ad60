"""A line for each request: when, what was asked, how it ended, and how long it took. Never what was said."""

from collections.abc import Callable
from datetime import datetime
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNTOLD = ("/health", "/metrics")
"""Paths that are asked for every few seconds: told of only where they fail."""


class RequestLog:
    """Tells of every HTTP request once its answer has ended."""

    def __init__(self, app: ASGIApp, tell: Callable[[str], None]) -> None:
        self._app, self._tell = app, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), "no answer"

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, heard)
        finally:
            if scope["path"] not in UNTOLD or status != "200":
                self._tell(request_line(scope["method"], scope["path"], status, perf_counter() - began))


def request_line(method: str, path: str, status: str, seconds: float) -> str:
    """The line. What a terminal would obey is left out of the path."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in path)
    return f"{datetime.now():%H:%M:%S} {method} {shown} {status}, {seconds:.2f} s"
