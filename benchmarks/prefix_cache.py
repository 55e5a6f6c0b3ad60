"""What the prefix cache saves: time to the first token of a chat's second turn, over that of its first.

python benchmarks/prefix_cache.py smollm2 --tokens 1500 --rounds 3 > prefix-cache.json

Each round is a chat of its own. Its first turn has so many tokens, its second one that, the answer, and a few more. The
same turns are then asked of an engine that keeps nothing.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

import torch

from foresay import DecodeConfig, MultiTokenModel, QueueConfig
from foresay.decoding.engine import Engine
from foresay.decoding.requests import Request
from foresay.foundation.provenance import provenance

ANSWER, MORE = 32, 20
"""Tokens of an answer, and of what is asked after it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn, asked once."""

    prefix_cache: int
    """MiB."""
    turn: int
    prompt_tokens: int
    cached_tokens: int
    seconds_to_first_token: float


def ask(engine: Engine, turn: int, prompt: Sequence[int]) -> tuple[Turn, list[int]]:
    """A turn and its answer."""
    began = perf_counter()
    engine.submit([Request(tuple(prompt), ANSWER)])
    [first] = engine.step()
    seconds = perf_counter() - began
    answer = list(first.step.tokens)
    while engine.busy:
        answer += [token for told in engine.step() for token in told.step.tokens]
    asked = Turn(engine.queue.prefix_cache, turn, len(prompt), first.cached_tokens, seconds)
    return asked, answer


def chat(engine: Engine, first: list[int], more: list[int]) -> list[Turn]:
    """Two turns."""
    one, answer = ask(engine, 1, first)
    two, _ = ask(engine, 2, [*first, *answer, *more])
    return [one, two]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    config, generator = DecodeConfig(layout="plain", ignore_stop=True), torch.Generator().manual_seed(0)
    turns: list[Turn] = []
    ratios: dict[int, list[float]] = {512: [], 0: []}
    for _ in range(given.rounds):
        ids = torch.randint(model.base.vocabulary, (given.tokens + MORE,), generator=generator).tolist()
        for mib, found in ratios.items():
            engine = model.engine(config, QueueConfig(sequences=1, max_length=given.tokens + 256, prefix_cache=mib))
            ask(engine, 0, ids[-MORE:])  # warm
            pair = chat(engine, ids[: given.tokens], ids[given.tokens :])
            found.append(pair[1].seconds_to_first_token / pair[0].seconds_to_first_token)
            turns += pair
    report = {
        "second_over_first_with_cache": median(ratios[512]),
        "second_over_first_without": median(ratios[0]),
        "turns": [asdict(turn) for turn in turns],
        "provenance": provenance(**vars(given)),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
