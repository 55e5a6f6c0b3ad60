"""What becomes of answers when clients, steps or the server itself fail, stop, or ask for too much."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import openai
import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from foresay.decoding.config import LayoutName, QueueConfig
from foresay.decoding.requests import Request
from foresay.decoding.session import Session
from foresay.model import MultiTokenModel
from foresay.models.masks.model import MaskModel
from foresay.serving.config import ServeConfig
from foresay.serving.openai import memory_check as room
from foresay.serving.openai.api_errors import dead, failed, stopping, timed_out
from foresay.serving.openai.memory_check import free_bytes
from foresay.serving.openai.stop_strings import Answer
from tests.support.served import ASKED, DECODE, ENDLESS, Served, endless, eventually, model, refused, served

__all__ = ["endless", "model"]


def test_clients_that_vanish_leave_no_slot(endless: Served) -> None:
    server = endless
    for stream in (True, False):
        before = server.counters().get("vllm:request_success_total/abort", 0)
        body = {**ASKED, "max_tokens": 900, "temperature": 2, "stream": stream}
        if stream:
            with server.http().stream("POST", "/v1/chat/completions", json=body) as reply:
                lines = reply.iter_lines()
                next(lines)
                assert server.service.running == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=1.5)
        assert eventually(lambda: server.service.running == 0)
        assert server.idle()
        assert server.counters()["vllm:request_success_total/abort"] == before + 1


def test_a_slow_reader_holds_nobody_up(endless: Served) -> None:
    server = endless
    body = {**ASKED, "max_tokens": 200, "temperature": 1, "stream": True}
    with server.http().stream("POST", "/v1/chat/completions", json=body) as slow:
        server.client.chat.completions.create(**ASKED, max_tokens=20)
        assert server.idle(), "its answer was written to the end, read or not"
        assert slow.read().endswith(b"data: [DONE]\n\n")


def test_a_full_queue_says_when_to_come_again(model: MultiTokenModel) -> None:
    with served(model, ENDLESS, QueueConfig(sequences=1, waiting=1)) as server:
        body = {**ASKED, "max_tokens": 900, "temperature": 2, "stream": True}
        http = server.http()
        with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            waiting = Thread(target=server.client.chat.completions.create, kwargs=dict(ASKED, max_tokens=2))
            waiting.start()
            assert eventually(lambda: server.service.waiting == 1)
            with pytest.raises(openai.RateLimitError, match="1 answers are waiting already") as found:
                server.client.chat.completions.create(**ASKED, max_tokens=2)
            assert int(found.value.response.headers["Retry-After"]) >= 1
        waiting.join(20)
        assert server.idle()


def test_the_key_is_asked_for(model: MultiTokenModel) -> None:
    with served(model, config=ServeConfig(port=0, api_key="secret")) as server:
        with pytest.raises(openai.AuthenticationError, match="wants its key"):
            server.client.models.list()
        assert server.http().post("/v1/chat/completions", json=ASKED).status_code == 401
        known = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret")
        assert known.chat.completions.create(**ASKED, max_tokens=2).choices
        assert server.http().get("/health").status_code == 200


def test_time_is_limited(model: MultiTokenModel) -> None:
    with served(model, ENDLESS, config=ServeConfig(port=0, timeout_seconds=0.3)) as server:
        body = {**ASKED, "temperature": 2, "max_tokens": 900}
        error = refused(server, 408, body)
        assert error["code"] == "timeout"
        patient = server.client.with_options(max_retries=2)
        with pytest.raises(openai.APIStatusError, match="took longer"):
            patient.chat.completions.create(**body)
        assert server.counters()["vllm:request_success_total/abort"] == 2, "it did not ask again"
        with pytest.raises(openai.APIError, match="took longer"):
            list(server.client.chat.completions.create(**body, stream=True))
        assert server.idle()


def test_errors_are_made_anew_for_each_request() -> None:
    """A shared one would keep the frames, and so the request, of every raise."""
    for make in (timed_out, stopping, failed, dead):
        assert make() is not make()


def test_what_is_too_much_is_refused_before_it_is_repeated(model: MultiTokenModel) -> None:
    with served(model) as server:
        error = refused(server, 400, {**ASKED, "n": 128})
        assert "128 answers were asked for" in error["message"]
        assert server.idle()


def test_a_step_that_fails_ends_its_answers_and_no_more(model: MultiTokenModel) -> None:
    with served(model) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MaskModel, "see", lambda *args: 1 / 0)
            with pytest.raises(openai.InternalServerError, match="a step failed"):
                server.client.chat.completions.create(**ASKED, max_tokens=4)
        assert server.client.chat.completions.create(**ASKED, max_tokens=4).choices
        assert server.idle()


def test_a_session_that_cannot_be_made_anew_fails_its_answers_too(model: MultiTokenModel) -> None:
    with served(model) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MaskModel, "see", lambda *args: 1 / 0)
            patch.setattr(Session, "empty", lambda *args: 1 / 0)
            for _ in range(2):
                with pytest.raises(openai.InternalServerError, match="a step failed"):
                    server.client.chat.completions.create(**ASKED, max_tokens=4)
        assert server.client.chat.completions.create(**ASKED, max_tokens=4).choices
        assert server.idle()


def test_an_answer_that_cannot_be_told_ends_alone(endless: Served) -> None:
    server, tell = endless, Answer.tell

    def broken(self: Answer, *told: Any) -> str:
        return tell(self, *told) if self.watched else str(1 / 0)

    with server.http().stream(
        "POST", "/v1/chat/completions", json={**ASKED, "max_tokens": 40, "stop": "never said", "stream": True}
    ) as other:
        next(other.iter_lines())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Answer, "tell", broken)
            with pytest.raises(openai.InternalServerError, match="a step failed"):
                server.client.chat.completions.create(**ASKED, max_tokens=900)
        assert server.idle()
        assert server.client.chat.completions.create(**ASKED, max_tokens=4).choices


@pytest.mark.parametrize("layout", ["plain", "quadratic", "planned", "tree"])
def test_the_room_that_is_asked_for_is_the_room_that_is_taken(model: MultiTokenModel, layout: LayoutName) -> None:
    decode = replace(DECODE, layout=layout)
    engine = model.engine(decode, QueueConfig(sequences=3, max_length=70))
    engine.submit([Request((5, 6, 7), 9)])
    engine.step()
    taken = sum(stored.nbytes for layer in engine.session.cache.layers for stored in (layer.keys, layer.values))
    assert model.kv_bytes(decode, 3, 70) == taken
    assert (free_bytes(model.base.device) or 2**40) > taken


def test_a_containers_limit_is_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(room, "CONTAINER", tmp_path)
    whole = free_bytes(cpu)
    for most, left in {"max": None, "1000": 1000 - 900 + 50, "800": 0, "?": None}.items():
        for name, text in {"max": most, "current": "900", "stat": "anon 850\ninactive_file 50"}.items():
            (tmp_path / f"memory.{name}").write_text(f"{text}\n")
        if whole is not None:
            assert free_bytes(cpu) == left if left is not None else free_bytes(cpu) > 2**20


@pytest.mark.parametrize("drain", [0.2, 20.0])
def test_a_server_that_stops_ends_its_answers(model: MultiTokenModel, drain: float) -> None:
    with served(model, ENDLESS, config=ServeConfig(port=0, drain_seconds=drain)) as server:
        body = {**ASKED, "temperature": 2, "max_tokens": 900 if drain < 1 else 40, "stream": True, "seed": 1}
        with server.http().stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            server.server.should_exit = True
            rest = [line for line in lines if line]
        if drain < 1:
            assert "being stopped" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
        else:
            assert rest[-1] == "data: [DONE]"

        def gone() -> bool:
            with suppress(httpx.TransportError):
                server.http().get("/health")
                return False
            return True

        assert eventually(gone)
