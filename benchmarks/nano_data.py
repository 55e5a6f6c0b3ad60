"""Build the training data of the embedded adapter: public texts, and the embedded base's own answers to them.

    FORESAY_DATA=... python benchmarks/nano_data.py --out build/nano-data

Sources (licences in the card of the embedded model): GSM8K train, MBPP without its test split, the alpaca_en demo rows,
a TinyStories excerpt, and the standard library of the running interpreter. Held-out prompts are in none of them.
"""

import json
import os
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import tyro

from foresay.config import DecodeConfig, MTPConfig
from foresay.decoding.generate import generate
from foresay.model import MultiTokenModel
from foresay.training.data import template_ids

MBPP_TEST = range(11, 511)
BATCH = 64
MIX = {"math": 0.42, "stories": 0.36, "chat": 0.13, "code": 0.09}
"""Shares of the training mixture; chosen on the dev prompts."""


def chat(user: str, assistant: str, domain: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, "domain": domain}


def public_rows(data: Path) -> Iterator[dict[str, Any]]:
    """Every row of the public sources."""
    for line in (data / "math/gsm8k_train.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield chat(row["question"], re.sub(r"<<[^>]*>>", "", row["answer"]), "math")
    for line in (data / "code/mbpp.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["task_id"] not in MBPP_TEST:
            yield chat(row["text"], row["code"].replace("\r\n", "\n"), "code")
    for row in json.loads((data / "chat/alpaca_en_demo.json").read_text()):
        user = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
        yield chat(user, row["output"], "chat")
    for story in stories(data):
        yield {"text": story, "domain": "stories"}


def stories(data: Path) -> list[str]:
    return [s.strip() for s in (data / "text/tinystories_2M.txt").read_text().split("<|endoftext|>") if len(s) > 200]


def library(most: int) -> Iterator[dict[str, Any]]:
    """Modules of the standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        p for p in sorted(root.glob("*.py")) + sorted(root.glob("*/*.py")) if "test" not in str(p.relative_to(root))
    ]
    files = [p for p in files if "site-packages" not in p.parts]
    random.Random(0).shuffle(files)
    for path in files[:most]:
        yield {"text": path.read_text(errors="ignore")[:20000], "domain": "code"}


def own_rows(data: Path, rows: list[dict[str, Any]], most: int, tokens: int) -> Iterator[dict[str, Any]]:
    """The base's own greedy answers to the prompts of the public rows, and to the openings of the stories."""
    model = MultiTokenModel.from_base("nano", MTPConfig(num_masks=1, rank=1))
    tokenizer = model.require_tokenizer()
    prompts = [
        (template_ids(tokenizer, row["messages"][:1], prompt=True), row["domain"]) for row in rows if "messages" in row
    ]
    words = random.Random(1)
    for story in stories(data) * 2:
        opening = " ".join(story.split()[: words.randint(8, 25)])
        prompts.append((tokenizer(opening)["input_ids"], "stories"))
    random.Random(2).shuffle(prompts)
    taken: dict[str, list[tuple[list[int], str]]] = {}
    for prompt, domain in prompts:
        if len(prompt) < 300 and len(taken.setdefault(domain, [])) < most:
            taken[domain].append((prompt, domain))
    chosen = sorted((p for group in taken.values() for p in group), key=lambda p: len(p[0]))
    config = DecodeConfig(layout="plain", max_new_tokens=tokens)
    for start in range(0, len(chosen), BATCH):
        group = chosen[start : start + BATCH]
        answers = generate(model.core, [prompt for prompt, _ in group], config)
        for (prompt, domain), answer in zip(group, answers):
            yield {"ids": [*prompt, *answer.tokens], "prompt_tokens": len(prompt), "domain": domain}
        print(f"{start + len(group)} of {len(chosen)} prompts answered", flush=True)


def mixed(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """`size` rows in the shares of `MIX`; a domain with too few is gone through again, in a new order."""
    chosen = []
    for domain, share in MIX.items():
        pool, order = [row for row in rows if row["domain"] == domain], random.Random(3)
        while len(pool) < size * share:
            pool = pool + order.sample(pool, len(pool))
        chosen += order.sample(pool, len(pool))[: round(size * share)]
    return random.Random(4).sample(chosen, len(chosen))


def main(out: Path, own: int = 4000, tokens: int = 160, modules: int = 150, mix: int = 15376) -> None:
    """Write `public.jsonl`, `own.jsonl`, and `mix.jsonl`, which the adapter is trained on.

    Args:
        out: Folder to write to.
        own: Most prompts of a domain that the base answers itself; 0 leaves `own` and `mix` empty.
        tokens: Length of those answers, in tokens.
        modules: Standard library modules taken.
        mix: Rows of the mixture.
    """
    if "FORESAY_DATA" not in os.environ:
        raise SystemExit("set FORESAY_DATA to the folder with the public data sets")
    data = Path(os.environ["FORESAY_DATA"])
    torch.set_num_threads(2)
    out.mkdir(parents=True, exist_ok=True)
    public = list(public_rows(data))
    own_answers = list(own_rows(data, public, own, tokens)) if own else []
    files = {
        "public": public + list(library(modules)),
        "own": own_answers,
        "mix": mixed(own_answers, mix) if own else [],
    }
    for name, rows in files.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    tyro.cli(main)
