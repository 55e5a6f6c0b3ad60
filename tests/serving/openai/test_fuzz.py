"""A few hundred requests from our own OpenAPI schema; `benchmarks/fuzz.py` sends a thousand."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from foresay.model import MultiTokenModel
from foresay.serving.config import ServeConfig
from tests.support.served import DECODE, served

ROOT = Path(__file__).parents[3]


def test_no_request_breaks_the_server_or_keeps_a_slot() -> None:
    fuzz = runpy.run_path(str(ROOT / "benchmarks" / "fuzz.py"))
    model = MultiTokenModel.from_pretrained("nano")
    config = ServeConfig(port=0, timeout_seconds=20)
    with served(model, replace(DECODE, max_new_tokens=4), config=config) as server:
        statuses = fuzz["fuzz"](server.url, 360)
        for path, counted in statuses.items():
            assert counted[400] >= 10, f"{path}: {counted}"
        assert sum(counted[200] for counted in statuses.values()) >= 10, statuses
        assert server.idle()
        assert fuzz["taken"](server.url) == 0
        server.client.completions.create(model="nano", prompt="Once", max_tokens=2)
