"""Induction on stories (paper B, 4.1): is the second half of a name, seen once, said again?

    FORESAY_DATA=... python recipes/heads/induction.py --out build/induction

In held-out stories every name is replaced by two tokens drawn at random; the score is how often head 1 says the second
behind the first, at each mention after the first. Scaled down: sizes of 1M and 3M, a TinyStories excerpt, fixed numbers
of epochs in place of stopping at the best one.
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro
from grid import Experiment, cells, plot, run_all, summary
from transformers import PreTrainedTokenizerBase

from foresay.config import PretrainConfig
from foresay.model import MultiTokenModel
from foresay.modelling.load import load_tokenizer

HELD_OUT = 100
"""Stories that are tested on."""
SIZES, HEADS, SEEDS, EPOCHS = ("1M", "3M"), (1, 2), (0, 1), (4, 12)
"""The whole grid."""
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
    dice: random.Random,
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
        ids += new.setdefault(name, (dice.choice(halves[0]), dice.choice(halves[1])))
        if again:
            scored.append(len(ids) - 1)
    return ids, scored


def halves_of(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Tokens that may begin a name (a space, a capital), and those that may end one."""
    known = tokenizer.get_vocab().items()
    first, second = (
        sorted(place for token, place in known if re.fullmatch(shape, token))
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
            said = model.core.model(torch.tensor([ids[:context]])).logits[0].argmax(-1)
            right += sum(int(said[place - 1]) == ids[place] for place in seen)
            total += len(seen)
    return right / total


def main(
    out: Path,
    sizes: Sequence[str] = SIZES,
    heads: Sequence[int] = HEADS,
    seeds: Sequence[int] = SEEDS,
    epochs: Sequence[int] = EPOCHS,
    length: int = 512,
) -> None:
    """Run what is missing, print JSON, draw `induction.png`.

    Args:
        out: Folder for data, models and cells.
        sizes: Sizes of models.
        heads: Numbers of heads, n.
        seeds: Seeds.
        epochs: Lengths of training; each is a run of its own, with its own schedule.
        length: Tokens in a row.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = stories(Path(os.environ["FORESAY_DATA"]))
    random.Random(0).shuffle(texts)
    data = out / "stories.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[HELD_OUT:]))
    tokenizer = load_tokenizer("nano")
    tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts[HELD_OUT:])
    halves = halves_of(tokenizer)
    names, dice = names_in(texts), random.Random(1)
    tests = [renamed(text, names, halves, tokenizer, dice) for text in texts[:HELD_OUT]]
    asked = []
    for many in epochs:
        steps = many * tokens // 8192
        train = PretrainConfig(steps=steps, length=length, optimizer="muon", learning_rate=2e-3)
        folder = out / f"{many}-epochs"
        folder.mkdir(exist_ok=True)
        experiment = Experiment(
            data,
            folder,
            "nano",
            train,
            lambda model, many=many: {"head 1": {str(many): accuracy(model, tests, length)}},
        )
        asked += [(experiment, cell) for cell in cells(sizes, heads, seeds)]
    found = run_all(asked)
    whole = {"cells": (len(found), len(cells(SIZES, HEADS, SEEDS)) * len(EPOCHS))}
    # A control: a model trained for longer on more data. Were it at 0 too, the test and not the models would fail.
    control = {"nano": accuracy(MultiTokenModel.from_pretrained("nano"), tests, length)}
    said = summary(found, whole, epochs=list(epochs), names=len(names)) | {"control": control}
    plot(said, out / "induction.png", "Induction: second half of a name seen before", "epochs", "share right")
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
