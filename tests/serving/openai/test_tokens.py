"""Texts and chats in tokens, and back, as vLLM's servers say it."""

from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from foresay import __version__
from foresay.data.chat import encode, text_ids
from foresay.model import MultiTokenModel
from tests.support.served import QUESTION, Served, model, refused, server

__all__ = ["model", "server"]


def test_a_text_is_said_in_tokens_and_back(server: Served, model: MultiTokenModel) -> None:
    tokenizer, http = model.require_tokenizer(), server.http()
    for opens in (True, False):
        ids = text_ids(tokenizer, "Once upon", opens)
        said = http.post("/tokenize", json={"prompt": "Once upon", "add_special_tokens": opens}).json()
        assert said == {"count": len(ids), "max_model_len": server.service.engine.longest, "tokens": ids}
        assert http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": tokenizer.decode(ids)}
    named = http.post("/tokenize", json={"model": "nano", "prompt": "Once", "return_token_strs": True}).json()
    assert named["token_strs"] == tokenizer.convert_ids_to_tokens(named["tokens"])
    assert http.post("/tokenize", json={"prompt": ""}).json()["count"] == len(text_ids(tokenizer, "", True))


def test_a_chat_is_said_in_the_tokens_that_are_asked(server: Served, model: MultiTokenModel) -> None:
    said = server.http().post("/tokenize", json={"messages": QUESTION, "add_generation_prompt": True}).json()
    assert said["tokens"] == encode(model.require_tokenizer(), QUESTION[0]["content"])
    answered = server.client.chat.completions.create(model="nano", messages=QUESTION, max_tokens=1)
    assert answered.usage.prompt_tokens == said["count"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("tokenize", {}, 400, "give prompt"),
        ("tokenize", {"prompt": "a", "messages": QUESTION}, 400, "one of both"),
        ("tokenize", {"prompt": "a", "tools": [{"function": {"name": "f"}}]}, 400, "tools belong to a chat"),
        ("tokenize", {"messages": QUESTION, "add_special_tokens": True}, 400, "what its template writes"),
        ("tokenize", {"prompt": "a", "model": "other"}, 404, "there is no model 'other' here"),
        ("tokenize", {"prompt": "a", "colour": 1}, 400, "colour"),
        ("tokenize", {"prompt": "\ud800"}, 400, "half a character"),
        ("detokenize", {"tokens": [10**9]}, 400, "the tokenizer has 0 to"),
        ("detokenize", {"tokens": [-1]}, 400, "tokens"),
        ("detokenize", {"tokens": "1"}, 400, "tokens"),
    ],
)
def test_what_is_no_text_is_refused(server: Served, path: str, body: dict[str, Any], status: int, message: str) -> None:
    assert message in refused(server, status, body, f"/{path}")["message"]


def test_the_version_is_said(server: Served) -> None:
    assert server.http().get("/version").json() == {"version": __version__}
