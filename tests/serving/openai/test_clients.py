"""What clients of every kind send: browsers, load balancers, curl, and tools that spell out every default."""

import gzip
import json
from collections.abc import Iterator
from copy import copy, deepcopy
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from foresay.model import MultiTokenModel
from foresay.serving.config import ServeConfig
from foresay.serving.openai.schema import NEUTRAL
from tests.support.served import Served, refused, served

ORIGIN = "http://localhost:3000"
CHAT = {"model": "nano", "messages": [{"role": "user", "content": "How many?"}], "temperature": 0, "max_tokens": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    config = ServeConfig(port=0, drain_seconds=5, allowed_origins=(ORIGIN,))
    with served(MultiTokenModel.from_pretrained("nano"), config=config) as running:
        yield running


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


def test_browser_on_an_allowed_origin(http: httpx.Client) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed, other = (
        http.options("/v1/chat/completions", headers=asked | {"Origin": origin}) for origin in (ORIGIN, "http://other")
    )
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Origin" not in other.headers
    said = http.post("/v1/chat/completions", json=CHAT, headers={"Origin": ORIGIN})
    assert said.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize("path", ["/health", "/", "/docs", "/metrics", "/v1/models"])
def test_load_balancers_ask_with_head(http: httpx.Client, path: str) -> None:
    reply = http.head(path)
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (
            json.dumps(CHAT).encode(),
            {},
            "came without a Content-Type; send it with the header Content-Type: application/",
        ),
        (
            json.dumps(CHAT).encode(),
            {"Content-Type": "application/x-www-form-urlencoded"},
            "came as application/x-www-",
        ),
        ("{'é'}".encode("latin-1"), {"Content-Type": "application/json"}, "cannot be read as JSON; send it as UTF-8"),
        (
            gzip.compress(json.dumps(CHAT).encode()),
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            "cannot be read as JSON; unpack it (it came as gzip)",
        ),
        (b"", {"Content-Type": "application/json"}, "the body is empty; send a JSON object"),
    ],
    ids=["no header", "form", "Latin-1", "gzip", "empty"],
)
def test_body_that_is_not_taken_for_json(http: httpx.Client, body: bytes, headers: dict[str, str], words: str) -> None:
    reply = http.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize("name", [*NEUTRAL, "logit_bias of zeros", "stream_options"])
def test_values_that_ask_for_nothing(server: Served, name: str) -> None:
    """By the schema alone: what it takes is answered as if it had not been sent."""
    from foresay.serving.openai.schema import ChatRequest  # noqa: PLC0415

    sent: list[dict[str, Any]] = [{name: value} for value in NEUTRAL.get(name, ())]
    if name == "logit_bias of zeros":
        sent = [{"logit_bias": {"13": 0}}]
    if name == "stream_options":
        sent = [{"stream": True, "stream_options": {"include_obfuscation": False}}]
    assert sent
    for more in sent:
        assert ChatRequest.model_validate(CHAT | more).messages == ChatRequest.model_validate(CHAT).messages


def test_offsets_of_a_stream_are_those_of_the_whole(server: Served) -> None:
    """Where a stop string holds text back, too."""
    asked: dict[str, Any] = {"model": "nano", "prompt": "Once upon", "max_tokens": 10, "temperature": 0, "logprobs": 1}
    asked["stop"] = [" a time, there was never"]
    whole = server.client.completions.create(**asked).choices[0].logprobs
    chunks = [chunk.choices[0].logprobs for chunk in server.client.completions.create(**asked, stream=True)]
    streamed = [offset for chunk in chunks if chunk is not None for offset in chunk.text_offset or ()]
    assert whole is not None
    assert streamed == whole.text_offset
    assert len(streamed) > 5
    assert sorted(streamed) == streamed


def test_thoughts_and_calls_that_the_template_does_not_render_are_refused(http: httpx.Client) -> None:
    said = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
    reply = http.post("/v1/chat/completions", json=CHAT | {"messages": [*CHAT["messages"], said, *CHAT["messages"]]})
    assert reply.status_code == 400
    assert "does not render reasoning_content; leave it out" in reply.json()["error"]["message"]


def test_what_a_tokenizer_puts_in_front_can_be_left_out(server: Served) -> None:
    """In silence it was dropped, or refused where it asked for what is done anyway."""
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415

    from foresay.serving.openai.schema import ChatRequest, CompletionRequest  # noqa: PLC0415

    service = copy(server.service)
    service.tokenizer = deepcopy(service.tokenizer)
    stop = service.tokenizer.eos_token
    marked = TemplateProcessing(single=f"{stop} $A", special_tokens=[(stop, service.tokenizer.eos_token_id)])
    service.tokenizer.backend_tokenizer.post_processor = marked

    def ids(**more: Any) -> list[int]:
        asked = CompletionRequest.model_validate({"model": "nano", "prompt": "Once upon"} | more)
        return service.prompts(asked)[0]

    assert ids() == ids(add_special_tokens=True) == [service.tokenizer.eos_token_id, *ids(add_special_tokens=False)]
    with pytest.raises(ValueError, match="add_special_tokens"):
        ChatRequest.model_validate(CHAT | {"add_special_tokens": True})


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "prompt: List should have at least 1 item"),
        ([-1], "prompt.0: Input should be greater than or equal to 0"),
        ([1.5], "prompt.0: Input should be a valid string or a valid integer or a valid list"),
        (5, "prompt: Input should be a valid string or a valid list"),
        ("", "prompt 1 has no tokens"),
    ],
)
def test_a_prompt_that_is_none_is_told_what_it_came_nearest(server: Served, prompt: object, words: str) -> None:
    assert words in refused(server, 400, {"model": "nano", "prompt": prompt}, "/v1/completions")["message"]
