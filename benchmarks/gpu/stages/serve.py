"""`foresay serve` under a closed loop of clients, planned against plain, each layout in a server of its own.

The clients are `benchmarks/load.py`'s: each asks, waits for the whole answer and asks again. What steps cost is
measured here first, a short while for each batch size, so that the server that plans finds it in the cache folder. In
half precision an answer may fall otherwise at a near-tie, so answers of the two layouts are counted as equal or not,
and not judged: `laws` judges.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bases import trained, trained_name
from card import free_memory
from job import Deadline, Job, Record, Skipped

from foresay.data.prompts import Prompt, embedded_prompts
from foresay.decoding.step_costs import TYPICAL
from load import Answered, Asked, loop, serving, summary

PLANNED, PLAIN = "planned", "plain"
EXTRA = ("fastapi", "uvicorn", "prometheus_client")


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked."""

    clients: tuple[int, ...] = (1, 16, 64)
    least: int = 12
    """Requests of a loop, or `each` for a client where that is more."""
    each: int = 4
    tokens: tuple[int, ...] = (24, 48, 96)
    """That requests ask for, in turn."""
    rounds: int = 3
    calibration_seconds: float = 0.5


DRY = Load(clients=(1, 2), least=2, each=1, tokens=(4,), rounds=1, calibration_seconds=0.01)


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """Start both servers (in a dry run one for both), then loops of ever more clients in turn. Raises Skipped."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise Skipped(f"serving needs {', '.join(missing)}; bring the wheels that benchmarks/gpu/wheels.sh collects")
    load, name = DRY if job.dry_run else Load(), trained_name(job)
    options = ["--sequences", str(max(load.clients)), "--max-length", "1024", "--dtype", job.dtype]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        plain = None if job.dry_run else pool.submit(stack.enter_context, serving(name, PLAIN, options))
        prompts = measured_beforehand(job, record, load)
        planned = stack.enter_context(serving(name, PLANNED, options))
        urls = {PLANNED: planned, PLAIN: plain.result() if plain else planned}
        asked = [
            Asked(prompts[place % len(prompts)], load.tokens[place % len(load.tokens)], [], Path(name).name)
            for place in range(max(load.least, load.each * max(load.clients)))
        ]
        for url in urls.values():  # what is made at the first call is no part of the measurement
            asyncio.run(loop(url, asked[:2], 2))
        for number in range(load.rounds):
            for clients in load.clients:
                if deadline.over:
                    record.leave_out(f"round {number + 1} with {clients} clients", "the time was over")
                    continue
                requests = asked[: max(load.least, load.each * clients)]
                compare(urls, requests, clients, record, number)


def measured_beforehand(job: Job, record: Record, load: Load) -> list[Prompt]:
    """Prompts to ask; what steps cost at every batch size then lies in the cache folder."""
    model = trained(job, record)
    size = 1
    while size < 2 * max(load.clients):
        model.step_costs([(size, TYPICAL)], seconds=load.calibration_seconds)
        size *= 2
    prompts = embedded_prompts(model.require_tokenizer(), "test", 20, model.base_name)
    del model
    free_memory()
    return prompts


def compare(urls: dict[str, str], requests: list[Asked], clients: int, record: Record, number: int) -> None:
    """One loop against each layout, the first one in turn."""
    said: dict[str, list[Answered]] = {}
    rates: dict[str, float] = {}
    for layout in list(urls)[:: 1 if number % 2 == 0 else -1]:
        answered, seconds = asyncio.run(loop(urls[layout], requests, clients))
        found = summary(answered, seconds)
        del found["differing"]  # from expected answers, which there are none of
        record.add(layout=layout, clients=clients, round=number, **found)
        said[layout], rates[layout] = answered, found["tokens_per_second"]
    answers = [{(one.asked.prompt.ids, one.asked.tokens): one.said for one in said[layout]} for layout in urls]
    equal = sum(answers[0][key] == answers[1][key] for key in answers[0])
    record.say(
        f"{clients} clients: planned {rates[PLANNED]:.0f} tokens/s, plain {rates[PLAIN]:.0f} "
        f"({rates[PLANNED] / rates[PLAIN]:.2f}x), {equal} of {len(answers[0])} answers equal"
    )
