"""What the recipes of models with heads compute with: arithmetic of polynomials, names of stories."""

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from foresay.models.base.load import load_tokenizer

FOLDER = Path(__file__).parents[2] / "recipes" / "heads"


@pytest.fixture(scope="module")
def recipes() -> Iterator[tuple[ModuleType, ModuleType]]:
    """(polynomials, induction)."""
    sys.path.insert(0, str(FOLDER))
    try:
        import induction  # noqa: PLC0415
        import polynomials  # noqa: PLC0415

        yield polynomials, induction
    finally:
        sys.path.remove(str(FOLDER))


def value(coefficients: list[int], at: list[int]) -> list[int]:
    """A polynomial at a polynomial, the long way, with every power of X kept; cut in the end."""
    out = [0] * 40
    power = [1] + [0] * 39
    for coefficient in coefficients:
        out = [(a + coefficient * b) % 7 for a, b in zip(out, power)]
        power = [sum(power[i] * (at[j - i] if j - i < len(at) else 0) for i in range(j + 1)) for j in range(40)]
    return out[:5]


def test_polynomials_compute_in_their_ring(recipes: tuple[ModuleType, ModuleType]) -> None:
    polynomials, _ = recipes
    rng = random.Random(0)
    x = [0, 1, 0, 0, 0]
    for _ in range(50):
        one, other = ([rng.randrange(7) for _ in range(5)] for _ in range(2))
        assert list(polynomials.compose(tuple(one), tuple(other))) == value(one, other)
        assert list(polynomials.compose(tuple(one), tuple(x))) == one
        product = [sum(one[i] * other[d - i] for i in range(d + 1)) % 7 for d in range(5)]
        assert list(polynomials.multiply(tuple(one), tuple(other))) == product


def test_expressions_have_as_many_operations_as_asked(recipes: tuple[ModuleType, ModuleType]) -> None:
    polynomials, _ = recipes
    rng = random.Random(0)
    for operations in range(9):
        text, result = polynomials.expression(operations, rng)
        assert len(re.findall(r"[-+*@]", text)) == operations
        assert len(result) == 5
    [(question, answer)] = polynomials.questions(0, 1, rng)
    assert question == f"{answer}="


def test_new_names_are_two_tokens_and_scored_from_the_second_mention_on(
    recipes: tuple[ModuleType, ModuleType],
) -> None:
    _, induction = recipes
    tokenizer = load_tokenizer("nano")
    halves = induction.halves_of(tokenizer)
    assert min(map(len, halves)) > 20
    story = "One day, Lily met Tom. Tom and Lily ran, and Tom fell."
    ids, scored = induction.renamed(story, {"Lily", "Tom"}, halves, tokenizer, random.Random(0))
    assert len(scored) == 3
    assert all(ids[place - 1] in halves[0] and ids[place] in halves[1] for place in scored)
    pairs = [(ids[place - 1], ids[place]) for place in scored]
    assert pairs[0] == pairs[2] != pairs[1]
    assert all(tokenizer.decode(ids).count(tokenizer.decode(pair)) in (2, 3) for pair in pairs)


def test_names_are_told_from_words_that_begin_sentences(recipes: tuple[ModuleType, ModuleType]) -> None:
    _, induction = recipes
    texts = ["The dog saw Lily. Then, the dog and Lily ran."] * 20
    assert induction.names_in(texts) == {"Lily"}


def test_what_is_left_out_of_a_grid_is_said(recipes: tuple[ModuleType, ModuleType]) -> None:
    grid = sys.modules[recipes[0].summary.__module__]
    assert grid.missing({"cells": (12, 12), "steps": (2000, 1500)}) == ""
    assert grid.missing({"cells": (6, 12), "steps": (300, 1500)}) == "PARTIAL: 6 of 12 cells, 300 of 1500 steps"
    cell = {"size": "1M", "heads": 1, "values": {"right": {"1": 0.5}}}
    assert grid.summary([cell], {"cells": (1, 2)})["partial"] == "PARTIAL: 1 of 2 cells"


def test_induction_is_drawn_along_sizes_and_mixes_no_epochs(recipes: tuple[ModuleType, ModuleType]) -> None:
    _, induction = recipes
    found = [
        {"size": size, "heads": 2, "seed": seed, "values": {"head 1": {epochs: share}}}
        for size, seed, epochs, share in (
            ("1M", 0, "4", 0.1),
            ("1M", 1, "4", 0.3),
            ("3M", 0, "4", 0.5),
            ("1M", 0, "8", 0.9),
        )
    ]
    drawn = induction.along_sizes(found)
    assert drawn["n = 2, 4 epochs"] == {"1M": [0.2, 0.1, 0.3], "3M": [0.5, 0.5, 0.5]}
    assert drawn["n = 2, 8 epochs"] == {"1M": [0.9, 0.9, 0.9]}
