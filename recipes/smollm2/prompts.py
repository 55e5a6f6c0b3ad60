"""The prompts that smollm2 answers for its adapter's training.

    FORESAY_DATA=... python recipes/smollm2/prompts.py --out build/smollm2/prompts

Writes `greedy.jsonl` and `sampled.jsonl`, two thirds and one third of the same shuffled prompts: README.md says what
becomes of them. They come from training sets and from texts; `written.json` holds what was written for this project.
Nothing is from the sets of `heldout.py`.
"""

import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import tyro

SEED = 2026
MBPP_TEST = range(11, 511)
PROBLEMS, EXERCISES, PASSAGES, CHOICES, STORIES = 420, 360, 130, 150, 40
"""Prompts of each of these kinds; of the others, all that there are."""
LONGEST_INSTRUCTION = 1200
"""Characters."""
PASSAGE = 700
"""Characters of a text at most, which then ends with a sentence."""
COMPLETE = 'Complete the following Python function:\n\n```python\n{}\n    """ {}\n    """\n```'
TESTS = "{}\nYour code should pass these tests:\n{}"
WRITTEN: dict[str, Any] = json.loads(Path(__file__).with_name("written.json").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a user says."""

    prompt: str
    domain: str


def rows(path: Path) -> list[dict[str, Any]]:
    """Of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def problems(data: Path, draw: random.Random) -> Iterator[Prompt]:
    """Questions of GSM8K's training split."""
    for row in draw.sample(rows(data / "math/gsm8k_train.jsonl"), PROBLEMS):
        yield Prompt(row["question"], "math")


def exercises(data: Path, draw: random.Random) -> Iterator[Prompt]:
    """MBPP without its test split: the task alone, with its tests, or as a function to be completed."""
    own = [row for row in rows(data / "code/mbpp.jsonl") if row["task_id"] not in MBPP_TEST]
    for number, row in enumerate(draw.sample(own, EXERCISES)):
        code = row["code"].replace("\r\n", "\n").replace("\t", "    ").splitlines()
        head = next((line.rstrip() for line in code if line.startswith("def ")), "")
        tested = TESTS.format(row["text"], "\n".join(row["test_list"]))
        forms = (row["text"], tested, COMPLETE.format(head, row["text"]))
        yield Prompt(forms[number % 3] if head else row["text"], "code")


def instructions(data: Path) -> Iterator[Prompt]:
    """Of Self-Instruct: its seed tasks, and those written with users in mind."""
    for row in rows(data / "prompts/instructions.jsonl"):
        if len(row["prompt"]) < LONGEST_INSTRUCTION:
            yield Prompt(row["prompt"], "chat")


def passages(data: Path, draw: random.Random) -> Iterator[Prompt]:
    """Something to do with a paragraph of Wikipedia or of the web."""
    wiki = re.split(r"\n+", (data / "text/wiki_demo.txt").read_text(encoding="utf-8"))
    web = json.loads((data / "text/c4_demo.json").read_text(encoding="utf-8"))
    paragraphs = [text.strip() for text in wiki if len(text.strip()) > 200]
    paragraphs += [text.strip() for row in web for text in row["text"].split("\n") if 200 < len(text.strip()) < 900]
    requests = WRITTEN["text_requests"]
    for number, text in enumerate(draw.sample(paragraphs, PASSAGES)):
        cut = text[:PASSAGE]
        yield Prompt(requests[number % len(requests)].format(cut[: cut.rfind(".") + 1] or cut), "chat")


def topics() -> Iterator[Prompt]:
    """Questions about things one learns at school."""
    forms = WRITTEN["topic_questions"]
    for number, topic in enumerate(WRITTEN["topics"]):
        yield Prompt(forms[number % len(forms)].format(topic), "knowledge")


def choices(draw: random.Random) -> Iterator[Prompt]:
    """Questions with four choices, of which one is of the kind that is asked for."""
    kinds, questions, endings = WRITTEN["kinds"], WRITTEN["kind_questions"], WRITTEN["kind_endings"]
    for number in range(CHOICES):
        kind = list(kinds)[number % len(kinds)]
        right = draw.choice(kinds[kind])
        others = [word for other in kinds if other != kind for word in kinds[other] if word not in kinds[kind]]
        options = [right, *draw.sample(others, 3)]
        draw.shuffle(options)
        lines = [questions[number % 3].format(kind), *(f"{label}. {word}" for label, word in zip("ABCD", options))]
        yield Prompt("\n".join(lines) + endings[number // 3 % 3], "knowledge")


def stories() -> Iterator[Prompt]:
    """Stories to be written."""
    heroes, places = WRITTEN["heroes"], WRITTEN["places"]
    for number in range(STORIES):
        place = places[(number * 3 + number // len(heroes)) % len(places)]
        yield Prompt(f"Write a short story about {heroes[number % len(heroes)]} {place}.", "chat")


def programs() -> Iterator[Prompt]:
    """Small programs to be written."""
    for number, program in enumerate(WRITTEN["programs"]):
        yield Prompt(f"Write a Python program that {program}.", "code")
        explained = f"Write a Python function that {program}, with a short explanation."
        yield Prompt(f"Write a function in JavaScript that {program}." if number % 2 else explained, "code")


def everyday() -> Iterator[Prompt]:
    """Harmless questions, some in words that could sound otherwise."""
    for wish, form in product(WRITTEN["everyday"], ("How can I {}?", "What is the best way to {}?")):
        yield Prompt(form.format(wish), "safety")


def prompts(data: Path) -> list[Prompt]:
    """All of them, in an order drawn once."""
    draw = random.Random(SEED)
    drawn = [*problems(data, draw), *exercises(data, draw), *instructions(data), *passages(data, draw)]
    drawn += [*topics(), *choices(draw), *stories(), *programs(), *everyday()]
    draw.shuffle(drawn)
    return drawn


def main(out: Path) -> None:
    """Write the files.

    Args:
        out: Folder to write to.
    """
    if "FORESAY_DATA" not in os.environ:
        raise SystemExit("set FORESAY_DATA to the folder with the public data sets")
    out.mkdir(parents=True, exist_ok=True)
    drawn = prompts(Path(os.environ["FORESAY_DATA"]))
    for name, thirds in (("greedy", (0, 1)), ("sampled", (2,))):
        lines = [json.dumps(asdict(one), ensure_ascii=False) for n, one in enumerate(drawn) if n % 3 in thirds]
        (out / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
