"""The log of requests: one line each, and never what was said."""

import asyncio
import re

import pytest

pytest.importorskip("fastapi")

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from foresay.serving.config import ServeConfig
from foresay.serving.openai.request_log import RequestLog, request_line
from foresay.serving.openai.server import HttpServer
from tests.support.served import ASKED, Served, model, server

__all__ = ["model", "server"]
LINE = r"\d\d:\d\d:\d\d (\w+) (\S+) (\d+|no answer), \d+\.\d\d s"


async def _reply(request: Request) -> Response:
    if request.url.path == "/broken":
        raise RuntimeError("broken")
    if request.url.path == "/stream":
        return StreamingResponse(iter(["secret", "words"]))
    return PlainTextResponse("secret", 503 if "fail" in request.query_params else 200)


def told(*paths: str) -> list[str]:
    lines: list[str] = []
    routes = [Route(path, _reply) for path in ("/a", "/stream", "/broken", "/health", "/metrics")]
    app = RequestLog(Starlette(routes=routes), lines.append)

    async def ask() -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            for path in paths:
                await client.get(path)

    asyncio.run(ask())
    return lines


def test_each_request_has_a_line() -> None:
    lines = told("/a?key=secret", "/stream", "/broken", "/nowhere")
    found = [re.fullmatch(LINE, line) for line in lines]
    assert [match and match.groups() for match in found] == [
        ("GET", "/a", "200"),
        ("GET", "/stream", "200"),
        ("GET", "/broken", "500"),
        ("GET", "/nowhere", "404"),
    ]
    assert "secret" not in "".join(lines)


def test_what_asks_all_the_time_is_told_only_when_it_fails() -> None:
    assert told("/health", "/metrics") == []
    assert len(told("/health?fail=1")) == 1


def test_a_path_tells_a_terminal_nothing() -> None:
    assert "\x1b" not in request_line("GET", "/\x1b[2J\nPOST", "404", 0.1)
    assert "/?[2J?POST 404, 0.10 s" in request_line("GET", "/\x1b[2J\nPOST", "404", 0.1)


def test_the_server_logs_its_answers_where_it_is_told_to(server: Served) -> None:
    lines: list[str] = []
    app = HttpServer(server.service, ServeConfig(port=0), lines.append).config.app

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
            return await client.post("/v1/chat/completions", json=ASKED | {"max_tokens": 4})

    assert asyncio.run(ask()).status_code == 200
    assert [re.fullmatch(LINE, line) is not None for line in lines] == [True]
    assert "POST /v1/chat/completions 200" in lines[0]
