"""Requests that nobody would send, made from the server's own OpenAPI schema: valid, broken and hostile ones.

No reply may be a server error, every refusal must be OpenAI's error object, and at the end no slot may be taken and
the next question must be answered.

    foresay serve nano --port 8000 --max-new-tokens 4 --timeout-seconds 20 &
    python benchmarks/fuzz.py http://127.0.0.1:8000 --cases 1000
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode

from foresay.foundation.provenance import provenance

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
MOST_TOKENS = 4
"""Longer answers would only take longer."""
PATHS = ("/v1/chat/completions", "/v1/completions")


def fuzz(url: str, cases: int, seed: int = 0) -> dict[str, Counter[int]]:
    """Send about `cases` requests; statuses by path. Raises AssertionError at the first reply that may not be."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    [model] = [card["id"] for card in httpx.get(f"{url}/v1/models").json()["data"]]
    seen: dict[str, Counter[int]] = {}
    for path in PATHS:
        counted = seen[path] = Counter()
        for mode in MODES:
            strategy = schema[path]["POST"].as_strategy(generation_mode=mode)
            _send(strategy, cases // len(MODES) // len(PATHS), seed, partial(_one, model, counted))
    return seen


def _send(strategy: Any, cases: int, seed: int, one: Callable[[Any], None]) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=strategy)
    def run(case: Any) -> None:
        one(case)

    run()


def _one(model: str, counted: Counter[int], case: Any) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        # A made-up name would be all that the server ever sees of a request.
        case.body["model"] = model
        for name in ("max_tokens", "max_completion_tokens"):
            if isinstance(case.body.get(name), int):
                case.body[name] = min(case.body[name], MOST_TOKENS)
    reply = case.call(timeout=60)
    counted[reply.status_code] += 1
    assert reply.status_code < 500, f"{reply.status_code} for {case.body!r}: {reply.text}"
    if reply.status_code >= 400:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}, reply.text
        assert reply.json()["error"]["message"]


def taken(url: str) -> float:
    """Slots taken and answers waiting."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_"))


def main() -> None:
    """Fuzz a running server and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    statuses = fuzz(given.url, given.cases, given.seed)
    print(
        json.dumps({"statuses": statuses, "taken": taken(given.url), "provenance": provenance(**vars(given))}, indent=1)
    )


if __name__ == "__main__":
    main()
