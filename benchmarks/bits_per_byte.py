"""How well bases say text that none of them was trained on: bits per byte by domain.

    FORESAY_DATA=... python benchmarks/bits_per_byte.py nano OTHER-BASE > benchmarks/results/training/bits-per-byte.json

Math is GSM8K test without its calculator marks, code MBPP's test split, questions and answers; stories and chat are the
held-out prompts alone: short, and all there is that is surely new to each.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import tyro
from transformers import PreTrainedTokenizerBase

from foresay.data.chat import template_ids
from foresay.data.example import Example
from foresay.foundation.provenance import provenance
from foresay.models.base.load import load_base, load_tokenizer
from foresay.models.base.model import Base
from foresay.training.runs.bits_per_byte import bits_per_byte

MBPP_TEST = range(11, 511)


def lines(path: Path) -> list[dict[str, object]]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(data: Path) -> Iterator[tuple[str, list[str]]]:
    """(domain, question and answer or one text)."""
    for row in lines(data / "math/gsm8k_test.jsonl"):
        yield "math", [str(row["question"]), re.sub(r"<<[^>]*>>", "", str(row["answer"]))]
    for row in lines(data / "code/mbpp.jsonl"):
        if row["task_id"] in MBPP_TEST:
            yield "code", [str(row["text"]), str(row["code"])]
    for row in lines(data / "heldout/stories.jsonl"):
        yield "stories", [str(row["prompt"])]
    for row in lines(data / "heldout/chat.jsonl"):
        yield "chat", [row["messages"][0]["content"]]  # type: ignore[index]


def example(tokenizer: PreTrainedTokenizerBase, domain: str, said: list[str], most: int) -> Example:
    """As the base reads it: a chat by its template, a single text as it is, from the beginning-of-text token on."""
    if len(said) == 1:
        ids = [tokenizer.bos_token_id, *tokenizer(said[0])["input_ids"]]
    else:
        roles = ("user", "assistant")
        ids = template_ids(
            tokenizer, [{"role": role, "content": text} for role, text in zip(roles, said)], prompt=False
        )
    return Example(tuple(ids[:most]), (True,) * len(ids[:most]), domain)


def main(bases: tyro.conf.Positional[list[str]], most: int = 1024) -> None:
    """Print JSON.

    Args:
        bases: Bases to measure: `nano`, folders, hub ids.
        most: Tokens of a text that are read.
    """
    said = list(texts(Path(os.environ["FORESAY_DATA"])))
    found = {}
    for name in bases:
        tokenizer = load_tokenizer(name)
        examples = [example(tokenizer, domain, text, most) for domain, text in said]
        found[name] = bits_per_byte(Base(load_base(name, "float32")), tokenizer, examples)
    print(json.dumps({"bits_per_byte": found, "texts": len(said), "provenance": provenance(most=most)}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
