"""A closed loop of clients against `foresay serve`: throughput and latency, beside `--layout plain` in the same run.

Each client asks, waits for the whole answer and asks again until all requests are answered; prompts are the base's
embedded `test` ones, answers have mixed lengths. One server process for each layout; they take turns on the same
requests, the other one idle. Every greedy answer is compared, token by token, with what `generate` says offline. In
float32 each that differs is a bug; with `--dtype bfloat16` it is judged as in `foresay check`, its prompt repeated in
float32, alone: who shared its batches is not known. Then the faults, on the first layout: clients that vanish in
mid-stream, and readers that hardly read.

    python benchmarks/load.py --clients 1 4 16 64 --requests 200 --repeats 3 > benchmarks/results/serving/nano-load.json
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep
from typing import Any

import httpx

from foresay.data.prompts import Prompt, embedded_prompts
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.evaluation.lossless.greedy import judged
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

LENGTHS = (8, 24, 48, 96)
"""Tokens that requests ask for, in turn."""
BETWEEN_LENGTHS = 16
"""Requests after which the lengths shift by one, so that every prompt meets each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what it must be answered with."""

    prompt: Prompt
    tokens: int
    expected: list[int]
    model: str
    """Name that the server has for its model."""

    @property
    def domain(self) -> str:
        """That of the prompt."""
        return self.prompt.domain


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, as a client saw it."""

    asked: Asked
    seconds: float
    said: list[int]
    steps: int

    @property
    def right(self) -> bool:
        """As offline."""
        return self.said == self.asked.expected

    @property
    def tokens(self) -> int:
        """How many it has."""
        return len(self.said)


def requests_of(model: MultiTokenModel, count: int, name: str) -> list[Asked]:
    """Prompts of all domains in turn, and the answers that they have offline; a server calls the model `name`."""
    by_domain = embedded_prompts(model.require_tokenizer(), "test", 8, model.base_name)
    prompts = sorted(by_domain, key=lambda prompt: [p for p in by_domain if p.domain == prompt.domain].index(prompt))
    asked, known = [], dict[tuple[tuple[int, ...], int], list[int]]()
    for place in range(count):
        prompt = prompts[place % len(prompts)]
        tokens = LENGTHS[(place + place // BETWEEN_LENGTHS) % len(LENGTHS)]
        if (prompt.ids, tokens) not in known:
            [said] = model.decode([prompt.ids], DecodeConfig(layout="plain", max_new_tokens=tokens))
            known[prompt.ids, tokens] = said.tokens
        asked.append(Asked(prompt, tokens, known[prompt.ids, tokens], name))
    return asked


@contextmanager
def serving(model: str, layout: str, options: Sequence[str]) -> Iterator[str]:
    """A server process; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "foresay", "serve", model, "--layout", layout, "--port", str(port), *options]
    process, url = subprocess.Popen(command), f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{url}/health").raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None, "the server ended before it heard anyone"
                sleep(0.2)
        yield url
    finally:
        process.terminate()
        assert process.wait(60) == 0, "a server that is stopped ends well"


def body_of(asked: Asked) -> dict[str, Any]:
    """The request as JSON."""
    how = {"temperature": 0, "return_token_ids": True}
    return {"model": asked.model, "prompt": list(asked.prompt.ids), "max_tokens": asked.tokens, **how}


async def loop(url: str, requests: Sequence[Asked], clients: int) -> tuple[list[Answered], float]:
    """What so many clients got, and in how many seconds all of it."""
    waiting = list(reversed(requests))
    answered = list[Answered]()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:

        async def client() -> None:
            while waiting:
                asked = waiting.pop()
                began = perf_counter()
                reply = (await http.post("/v1/completions", json=body_of(asked))).raise_for_status().json()
                seconds, steps = perf_counter() - began, reply["usage"]["steps"]
                answered.append(Answered(asked, seconds, reply["choices"][0]["token_ids"], steps))

        began = perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return answered, perf_counter() - began


def summary(answered: Sequence[Answered], seconds: float) -> dict[str, Any]:
    """Figures of one loop."""
    cuts = quantiles([answer.seconds for answer in answered], n=100, method="inclusive")
    domains = sorted({answer.asked.domain for answer in answered})
    steps = {domain: [a for a in answered if a.asked.domain == domain] for domain in domains}
    return {
        "answered": len(answered),
        "differing": sum(not answer.right for answer in answered),
        "seconds": seconds,
        "tokens_per_second": sum(answer.tokens for answer in answered) / seconds,
        "p50_seconds": cuts[49],
        "p99_seconds": cuts[98],
        "tokens_per_step": {d: sum(a.tokens for a in some) / sum(a.steps for a in some) for d, some in steps.items()},
    }


@dataclass(slots=True)
class Judge:
    """Says of answers that differ from the offline one whether rounding explains it; each only once."""

    model: MultiTokenModel
    exact: MultiTokenModel
    known: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def hear(self, layout: LayoutName, clients: int, answered: Sequence[Answered]) -> None:
        """Judge what differs of one loop."""
        for one in answered:
            key = (layout, one.asked.prompt.ids, tuple(one.said))
            if one.right or key in self.known:
                continue
            ids, tokens = one.asked.prompt.ids, one.asked.tokens
            ways: tuple[LayoutName, ...] = ("plain", layout)
            plain, own = (
                self.exact.decode([ids], DecodeConfig(layout=way, max_new_tokens=tokens))[0].tokens for way in ways
            )
            exact = plain != own or self.model.dtype_name == "float32"
            found = judged(self.model, one.asked.prompt, (one.asked.expected, one.said), exact)
            self.known[key] = {"layout": layout, "clients": clients, "domain": one.asked.domain, **found}


def faults(url: str, requests: Sequence[Asked], clients: int) -> dict[str, Any]:
    """Half of the clients vanish after two chunks, half read their streams a byte at a time; then all must be free."""

    async def vanish(http: httpx.AsyncClient, asked: Asked) -> None:
        async with http.stream("POST", "/v1/completions", json=body_of(asked) | {"stream": True}) as reply:
            lines = reply.aiter_lines()
            for _ in range(2):
                await anext(lines, "")

    async def dawdle(http: httpx.AsyncClient, asked: Asked) -> int:
        body = body_of(asked) | {"stream": True}
        async with http.stream("POST", "/v1/completions", json=body) as reply:
            read = b""
            async for some in reply.aiter_bytes(256):
                read += some
                await asyncio.sleep(0.02)
            return read.endswith(b"data: [DONE]\n\n")

    async def all_of_them() -> list[Any]:
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as http:
            kinds = (vanish, dawdle)
            return await asyncio.gather(*(kinds[place % 2](http, asked) for place, asked in enumerate(requests)))

    before = memory(url)
    done = asyncio.run(all_of_them())
    sleep(1)
    [check], _ = asyncio.run(loop(url, requests[:1], 1))
    return {
        "vanished": sum(one is None for one in done),
        "read_slowly_to_the_end": sum(one is True for one in done),
        "slow_readers": sum(one is not None for one in done),
        "slots_taken": counter(url, "vllm:num_requests_running") + counter(url, "vllm:num_requests_waiting"),
        "next_answer_right": check.right,
        "resident_bytes_before": before,
        "resident_bytes_after": memory(url),
    }


def settle(url: str) -> None:
    """Wait until a server has measured its steps, which it does while nobody asks: it would slow the others down."""
    while any(figures(url, "foresay:costs_wanted")):
        sleep(0.5)


def counter(url: str, name: str) -> float:
    """A figure of /metrics."""
    [figure] = figures(url, name)
    return figure


def figures(url: str, name: str) -> list[float]:
    """All that /metrics has of this name; none where the server does not count it."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]


def memory(url: str) -> float:
    """Resident bytes of the server, as it counts them itself."""
    return counter(url, "process_resident_memory_bytes")


def main() -> None:
    """Run and print JSON; exit 1 for any difference that rounding does not explain, and for what faults break."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano", help="folder of a foresay model, smollm2 or nano")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layouts", nargs="+", default=["planned", "plain"])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--options", default="--sequences 64", help="further options of foresay serve, in one word")
    given = parser.parse_args()
    model = MultiTokenModel.from_pretrained(given.model, dtype=given.dtype)
    judge = Judge(model, MultiTokenModel.from_pretrained(given.model, dtype="float32"))
    requests = requests_of(model, given.requests, Path(given.model).name)
    results, options = [], [*given.options.split(), "--dtype", given.dtype]
    with ExitStack() as stack:
        urls = {layout: stack.enter_context(serving(given.model, layout, options)) for layout in given.layouts}
        for url in urls.values():
            asyncio.run(loop(url, requests[:8], 4))  # what is made at the first call is no part of the measurement
        for clients in given.clients:
            for repeat in range(given.repeats):
                for layout in given.layouts if repeat % 2 == 0 else given.layouts[::-1]:
                    for url in urls.values():
                        settle(url)
                    answered, seconds = asyncio.run(loop(urls[layout], requests, clients))
                    judge.hear(layout, clients, answered)
                    found = summary(answered, seconds)
                    results.append({"layout": layout, "clients": clients, "repeat": repeat, **found})
                    print(f"{clients} clients, {layout}: {found}", file=sys.stderr)
        broken = faults(urls[given.layouts[0]], requests, max(given.clients))
    differing = list(judge.known.values())
    made = {"results": results, "differing": differing, "faults": broken, "provenance": provenance(**vars(given))}
    print(json.dumps(made, indent=1))
    sound = broken["read_slowly_to_the_end"] == broken["slow_readers"] and broken["next_answer_right"]
    bugs = any(one["verdict"] == "bug" for one in differing)
    sys.exit(1 if bugs or broken["slots_taken"] or not sound else 0)


if __name__ == "__main__":
    main()
