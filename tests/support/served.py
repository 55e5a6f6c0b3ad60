"""A server of the embedded model in a thread, and what tests ask it with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from time import monotonic, sleep

import httpx
import pytest
from openai import OpenAI

from foresay.decoding.config import DecodeConfig, QueueConfig
from foresay.model import MultiTokenModel
from foresay.serving.config import ServeConfig
from foresay.serving.openai.server import HttpServer, listen
from foresay.serving.openai.service import Service

DECODE = DecodeConfig(layout="quadratic", masks=3, max_new_tokens=64)
QUESTION = [{"role": "user", "content": "Tom has 3 apples and buys 4 more. How many apples has he?"}]
ASKED = {"model": "nano", "messages": QUESTION, "temperature": 0}
ENDLESS = replace(DECODE, ignore_stop=True)
"""Answers as long as they were asked for."""


@dataclass
class Served:
    """A running server."""

    url: str
    service: Service
    server: HttpServer

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=60)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def counters(self) -> dict[str, float]:
        """What /metrics says, labels left out."""
        lines = [line for line in self.http().get("/metrics").text.splitlines() if not line.startswith("#")]
        return {line.split("{")[0] + suffix(line): float(line.split()[-1]) for line in lines}

    def idle(self) -> bool:
        """Soon nobody has a slot, nor waits for one."""
        return eventually(lambda: not self.service.worker.busy and not self.service.engine.session.live)


def suffix(line: str) -> str:
    """The label that tells counters of one name apart."""
    for label in ("position", "finished_reason", "layout", "le"):
        if f'{label}="' in line:
            return "/" + line.split(f'{label}="', 1)[1].split('"', 1)[0]
    return ""


def eventually(true: object, seconds: float = 20) -> bool:
    """Whether `true()` comes true in time."""
    end = monotonic() + seconds
    while not true() and monotonic() < end:  # type: ignore[operator]
        sleep(0.01)
    return bool(true())  # type: ignore[operator]


@contextmanager
def served(
    model: MultiTokenModel,
    decode: DecodeConfig = DECODE,
    queue: QueueConfig | None = None,
    config: ServeConfig | None = None,
) -> Iterator[Served]:
    """Start a server on a free port; stop it at the end, and see that it stopped."""
    config = config or ServeConfig(port=0, drain_seconds=5)
    service = Service(model, "nano", decode, queue or QueueConfig(sequences=4, waiting=8))
    listening = listen(config)
    server = HttpServer(service, config)
    thread = Thread(target=server.run, args=([listening],))
    thread.start()
    assert eventually(lambda: server.started)
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service, server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert not service.worker.is_alive()


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture(scope="module")
def endless(model: MultiTokenModel) -> Iterator[Served]:
    with served(model, ENDLESS) as running:
        yield running


@pytest.fixture(scope="module")
def server(model: MultiTokenModel) -> Iterator[Served]:
    with served(model) as running:
        yield running


def refused(server: Served, status: int, body: object, path: str = "/v1/chat/completions") -> dict[str, str]:
    """The error object of a body that is refused with `status`."""
    content = body if isinstance(body, bytes) else json.dumps(body)
    reply = server.http().post(path, content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)
