"""The page under /docs: what the schema says, and nothing from elsewhere."""

import re

import pytest

pytest.importorskip("fastapi")

from foresay.serving.openai.docs_page import docs_page
from foresay.serving.openai.schema import ChatRequest
from tests.support.served import Served, model, server

__all__ = ["model", "server"]
EVIL = "<script>alert(1)</script>"


def test_every_route_and_every_field_is_there(server: Served) -> None:
    reply = server.http().get("/docs")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = reply.text
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health"):
        assert f"{path}</h2>" in page
    for field in ChatRequest.model_fields:
        assert f"<code>{field}</code>" in page
    assert "number from 0 to 2" in page, "of the temperature"
    for said in ("No stop token or stop string ends an answer before", "<code>plain</code>: decode this request"):
        assert f"<td>{said}" in page, "what stands under a field in the code"
    assert "object of type, json_schema</td>" in page, "of the response format"
    assert f"curl {server.url}/v1/chat/completions" in page


def test_nothing_is_fetched_from_elsewhere(server: Served) -> None:
    page = server.http().get("/docs").text
    assert not re.findall(r"<(script|link rel=\"stylesheet\"|img)", page)
    assert {link for link in re.findall(r'(?:href|src)="([^"]*)"', page)} == {"data:,", "/", "/openapi.json"}


def test_names_are_only_text() -> None:
    schema = {"paths": {f"/{EVIL}": {"get": {"description": EVIL}}}}
    assert EVIL not in docs_page(schema, EVIL, "http://here/")
