"""Induction on stories (paper B, 4.1): is the second half of a name, seen once, said again?

    FORESAY_DATA=... python recipes/heads/induction.py --out build/induction

In held-out stories every name is replaced by two tokens drawn at random; the score is how often head 1 says the second
after the first, at each mention after the first. Scaled down: a TinyStories excerpt of half a million tokens, fixed
numbers of epochs in place of stopping at the best one, and, by default, names that are drawn anew in the training
stories too, from 50 first and 50 second halves: on so few stories with their own names no model learnt it
(`--names own`, docs/experiments/heads.md).
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from grid import PACE, Experiment, Precision, cells, over_seeds, plot, run_all, summary
from transformers import PreTrainedTokenizerBase

from foresay.foundation.files import write_whole
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.training.config import PretrainConfig

HELD_OUT = 100
"""Stories that are tested on."""
SIZES, HEADS, SEEDS, EPOCHS = ("1M", "3M"), (1, 2), (0, 1), (8,)
"""The whole grid."""
HALVES = 50
"""First and second halves that names are made of."""
LENGTH = 256
"""Tokens in a row, and of a test story that are read."""
COMMON = 15
"""A word is a name when it stands so often with a capital inside sentences, and rarely without one."""


def stories(data: Path) -> list[str]:
    """Whole stories."""
    return [s.strip() for s in (data / "text/tinystories_2M.txt").read_text().split("<|endoftext|>") if len(s) > 200]


def names_in(texts: Sequence[str]) -> set[str]:
    """Words that are written with a capital inside sentences, and hardly ever without."""
    inside = Counter(word for text in texts for word in re.findall(r"(?<=[a-z,] )([A-Z][a-z]{2,})\b", text))
    small = Counter(word for text in texts for word in re.findall(r"\b[a-z]{3,}\b", text))
    return {word for word, count in inside.items() if count >= COMMON and small[word.lower()] < count // 5}


def renamed(
    text: str,
    names: set[str],
    halves: tuple[Sequence[int], Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    rng: random.Random,
) -> tuple[list[int], list[int]]:
    """Ids of a story with new names of two tokens, and where the second stands at mentions after the first."""
    new: dict[str, tuple[int, int]] = {}
    ids: list[int] = []
    scored = []
    for part in re.split(r"( ?\b[A-Z][a-z]+\b)", text):
        name = part.strip()
        if name not in names:
            ids += tokenizer(part)["input_ids"] if part else []
            continue
        again = name in new
        ids += new.setdefault(name, (rng.choice(halves[0]), rng.choice(halves[1])))
        if again:
            scored.append(len(ids) - 1)
    return ids, scored


def halves_of(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Some tokens that may begin a name (a space, a capital), and some that may end one."""
    known, rng = tokenizer.get_vocab().items(), random.Random(3)
    first, second = (
        rng.sample(sorted(place for token, place in known if re.fullmatch(shape, token)), HALVES)
        for shape in (r"Ġ[A-Z][a-z]{1,5}", r"[a-z]{2,5}")
    )
    return first, second


@torch.no_grad()
def accuracy(model: MultiTokenModel, tests: Sequence[tuple[list[int], list[int]]], context: int) -> float:
    """Share of second halves that head 1 puts first."""
    right = total = 0
    for ids, places in tests:
        seen = [place for place in places if place < context]
        if seen:
            said = model.base.model(torch.tensor([ids[:context]])).logits[0].argmax(-1)
            right += sum(int(said[place - 1]) == ids[place] for place in seen)
            total += len(seen)
    return right / total


@dataclass(frozen=True, slots=True)
class Stories:
    """What is trained and tested on."""

    texts: list[str]
    """The first `HELD_OUT` are for the test."""
    tokenizer: PreTrainedTokenizerBase
    names: set[str]
    halves: tuple[list[int], list[int]]

    @classmethod
    def read(cls, data: Path) -> "Stories":
        """All of them in an order of their own."""
        texts, tokenizer = stories(data), load_tokenizer("nano")
        random.Random(0).shuffle(texts)
        return cls(texts, tokenizer, names_in(texts), halves_of(tokenizer))

    @property
    def tests(self) -> list[tuple[list[int], list[int]]]:
        """Held-out stories with new names, and where they are scored."""
        rng = random.Random(1)
        return [renamed(text, self.names, self.halves, self.tokenizer, rng) for text in self.texts[:HELD_OUT]]

    def write(self, path: Path, epochs: int, own: bool) -> int:
        """The training stories, with their own names or so many times with new ones; tokens of one epoch."""
        texts, rng = self.texts[HELD_OUT:], random.Random(2)
        if own:
            rows: list[dict[str, Any]] = [{"text": text} for text in texts]
        else:
            rows = [
                {"ids": renamed(text, self.names, self.halves, self.tokenizer, rng)[0]}
                for _ in range(epochs)
                for text in texts
            ]
        write_whole(path, "".join(f"{json.dumps(row)}\n" for row in rows))
        return sum(len(self.tokenizer(text)["input_ids"]) + 1 for text in texts)


def along_sizes(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Of each number of heads and of epochs: median, least and most over seeds, by size."""
    return over_seeds(
        (f"n = {cell['heads']}, {epochs} epochs", cell["size"], share)
        for cell in found
        for epochs, share in cell["values"]["head 1"].items()
    )


def main(
    out: Path,
    *,
    sizes: Sequence[str] = SIZES,
    heads: Sequence[int] = HEADS,
    seeds: Sequence[int] = SEEDS,
    epochs: Sequence[int] = EPOCHS,
    names: Literal["random", "own"] = "random",
    dtype: Precision = "float32",
) -> None:
    """Run what is missing, print JSON, draw `induction.png`.

    Args:
        out: Folder for data, models and cells.
        sizes: Sizes of models.
        heads: Numbers of heads, n.
        seeds: Seeds.
        epochs: Lengths of training; each is a run of its own, with its own schedule.
        names: Names in the training stories: drawn anew in each epoch, or their own.
        dtype: Dtype of products; bfloat16 is faster where the processor has it.
    """
    known = Stories.read(Path(os.environ["FORESAY_DATA"]))
    tests, asked = known.tests, []
    for many in epochs:
        folder = out / f"{many}-epochs-{names}"
        folder.mkdir(parents=True, exist_ok=True)
        tokens = known.write(folder / "stories.jsonl", many, own=names == "own")
        train = PretrainConfig(steps=many * tokens // 4096, batch_tokens=4096, length=LENGTH, dtype=dtype, **PACE)
        experiment = Experiment(
            folder / "stories.jsonl",
            folder,
            "nano",
            train,
            lambda model, many=many: {"head 1": {str(many): accuracy(model, tests, LENGTH)}},
        )
        asked += [(experiment, cell) for cell in cells(sizes, heads, seeds)]
    found = run_all(asked)
    whole = {"cells": (len(found), len(cells(SIZES, HEADS, SEEDS)) * len(EPOCHS))}
    # Two controls. Were a model trained for longer on more data at chance too, the test and not the models would fail.
    control = {"nano": accuracy(MultiTokenModel.from_pretrained("nano"), tests, LENGTH), "chance": 1 / HALVES}
    said = summary(found, whole, epochs=list(epochs), training_names=names, names=len(known.names), dtype=dtype)
    drawn = said | {"median_least_most": along_sizes(found)}
    plot(drawn, out / "induction.png", "Induction: second half of a name seen before", "size", "share right")
    print(json.dumps(said | {"control": control}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
