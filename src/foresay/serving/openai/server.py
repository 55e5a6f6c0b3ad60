"""The server process: listens, and when it is stopped gives answers time to end."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable

import uvicorn

from foresay.foundation.errors import ConfigError
from foresay.serving.config import ServeConfig
from foresay.serving.openai.app import build
from foresay.serving.openai.service import Service

POLL_SECONDS = 0.05
GRACE_SECONDS = 5
"""Time that connections have to close once every answer has ended."""


class HttpServer(uvicorn.Server):
    """Stops on SIGTERM or SIGINT: takes no new requests, and ends the running ones when their time is over."""

    def __init__(self, service: Service, config: ServeConfig, tell: Callable[[str], None] | None = None) -> None:
        """`tell` hears a line for every request that has ended."""
        self._service, self._drain_seconds = service, config.drain_seconds
        self._app = build(service, config, tell)
        # A server without a limit would wait for ever for a client that does not read.
        grace = int(config.drain_seconds) + GRACE_SECONDS
        super().__init__(uvicorn.Config(self._app, log_level="warning", timeout_graceful_shutdown=grace))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        self._app.state.api.stopping = True
        drain = asyncio.create_task(self._drain())
        await super().shutdown(sockets)
        drain.cancel()
        self._service.close()

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while self._service.worker.busy:
                    await asyncio.sleep(POLL_SECONDS)
        self._service.worker.abort()


def listen(config: ServeConfig) -> socket.socket:
    """A socket that listens. Raises ConfigError when the address cannot be had."""
    try:
        return socket.create_server((config.host, config.port), family=_family(config.host), backlog=2048)
    except OSError as error:
        # Python adds the address to the reason, which the sentence begins with.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise ConfigError(
            f"{config.host}:{config.port} cannot be listened on ({why}); give another --host or --port"
        ) from error


def serve(service: Service, config: ServeConfig, listening: socket.socket, tell: Callable[[str], None]) -> None:
    """Serve until stopped; `tell` hears the address first, then a line for every request, where those are logged."""
    host, port = listening.getsockname()[:2]
    tell(f"serving {service.name} at http://{f'[{host}]' if ':' in host else host}:{port}")
    # uvicorn raises the signal that stopped it once more, for whoever listened before: to stop was no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        HttpServer(service, config, tell if config.request_log else None).run([listening])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
