"""Polynomial arithmetic in F_7[X]/(X^5) (paper B, 4.2): does predicting several tokens help to compute?

    python recipes/heads/polynomials.py --out build/polynomials

Trees of negation, sum, product and composition; 1 to 3 operations in training, more are out of domain. A polynomial is
its five coefficients, constant first. Loss is on answers alone: the random digits of a question can be foretold by
nobody, and drown what there is to learn. Scaled down from the paper: sizes of 0.3M and 1M in place of 30M and 100M, 3
operations in place of 5, short trainings.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import tyro
from grid import PACE, Experiment, Precision, Values, cells, plot, run_all, summary

from foresay.decoding.config import DecodeConfig
from foresay.foundation.files import write_whole
from foresay.model import MultiTokenModel
from foresay.models.base.untrained import named_tokenizer
from foresay.training.config import PretrainConfig

FIELD, DEGREE, MOST = 7, 5, 3
"""F_7, X^5 = 0, most operations in training."""
SIZES, HEADS, SEEDS, STEPS = ("0.3M", "1M"), (1, 2, 4), (0, 1), 2500
"""The whole grid."""
Polynomial = tuple[int, ...]


def add(one: Polynomial, other: Polynomial) -> Polynomial:
    """Sum."""
    return tuple((a + b) % FIELD for a, b in zip(one, other))


def multiply(one: Polynomial, other: Polynomial) -> Polynomial:
    """Product, without what X^5 = 0 takes away."""
    out = [0] * DEGREE
    for i, a in enumerate(one):
        for j, b in enumerate(other[: DEGREE - i]):
            out[i + j] = (out[i + j] + a * b) % FIELD
    return tuple(out)


def compose(one: Polynomial, other: Polynomial) -> Polynomial:
    """`one` of `other`, by Horner's rule."""
    out: Polynomial = (0,) * DEGREE
    for a in reversed(one):
        out = add(multiply(out, other), (a,) + (0,) * (DEGREE - 1))
    return out


BINARY: dict[str, Callable[[Polynomial, Polynomial], Polynomial]] = {"+": add, "*": multiply, "@": compose}


def expression(operations: int, rng: random.Random) -> tuple[str, Polynomial]:
    """A random tree with that many operations, written down, and its value."""
    if not operations:
        value = tuple(rng.randrange(FIELD) for _ in range(DEGREE))
        return "".join(map(str, value)), value
    sign = rng.choice("-+*@")
    if sign == "-":
        text, value = expression(operations - 1, rng)
        return f"-{text}", tuple(-a % FIELD for a in value)
    left = rng.randrange(operations)
    one, other = expression(left, rng), expression(operations - 1 - left, rng)
    return f"({one[0]}{sign}{other[0]})", BINARY[sign](one[1], other[1])


def questions(operations: int, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(question, answer)."""
    for _ in range(count):
        text, value = expression(operations, rng)
        yield f"{text}=", "".join(map(str, value))


def write_data(path: Path, count: int) -> None:
    """Training expressions, the same for every cell, as tokens: as rows of text the tokenizer would make them chats."""
    rng, tokenizer = random.Random(0), named_tokenizer("", "bytes")
    pairs = [pair for _ in range(count) for pair in questions(rng.randint(1, MOST), 1, rng)]
    asked, said = (tokenizer(list(texts))["input_ids"] for texts in zip(*pairs))
    rows = (
        {"ids": [*question, *answer, tokenizer.eos_token_id], "prompt_tokens": len(question)}
        for question, answer in zip(asked, said)
    )
    write_whole(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def accuracy(model: MultiTokenModel, most: int, count: int) -> Values:
    """Share of right answers by number of operations, greedy, on expressions drawn with another seed."""
    tokenizer, rng = model.require_tokenizer(), random.Random(1)
    config = DecodeConfig(layout="plain", max_new_tokens=DEGREE)
    right = {}
    for operations in range(1, most + 1):
        asked = list(questions(operations, count, rng))
        answers = model.decode([tokenizer(question)["input_ids"] for question, _ in asked], config)
        said = [tokenizer.decode(answer.tokens) for answer in answers]
        right[str(operations)] = sum(one == answer for one, (_, answer) in zip(said, asked)) / count
    return {"right": right}


def main(
    out: Path,
    *,
    sizes: Sequence[str] = SIZES,
    heads: Sequence[int] = HEADS,
    seeds: Sequence[int] = SEEDS,
    steps: int = STEPS,
    dtype: Precision = "float32",
    answers_only: bool = True,
    expressions: int = 300_000,
    test: int = 200,
) -> None:
    """Run what is missing, print JSON, draw `polynomials.png`.

    Args:
        out: Folder for data, models and cells.
        sizes: Sizes of models.
        heads: Numbers of heads, n.
        seeds: Seeds.
        steps: Optimizer steps of 2,048 tokens.
        dtype: Dtype of products; bfloat16 is faster where the processor has it.
        answers_only: Loss on answers alone; without it on every token, for comparison.
        expressions: Training expressions.
        test: Test expressions for each number of operations.
    """
    out.mkdir(parents=True, exist_ok=True)
    data = out / f"expressions-{expressions}.jsonl"
    if not data.is_file():
        write_data(data, expressions)
    train = PretrainConfig(steps=steps, batch_tokens=2048, length=256, answers_only=answers_only, dtype=dtype, **PACE)
    experiment = Experiment(
        data, out, "bytes", train, lambda model: accuracy(model, MOST + 2, test), measuring=f"{test} expressions"
    )
    asked = [(experiment, cell) for cell in cells(sizes, heads, seeds)]
    found = run_all(asked)
    whole = {"cells": (len(found), len(cells(SIZES, HEADS, SEEDS))), "steps": (steps, STEPS)}
    said = summary(found, whole, expressions=expressions, **asdict(train))
    plot(said, out / "polynomials.png", "Polynomial arithmetic: 1 to 3 in training", "operations", "share right")
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
