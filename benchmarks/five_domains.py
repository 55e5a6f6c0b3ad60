"""Write a prompts file over the five domains of paper A's Table 1 from the local sets in FORESAY_DATA.

python benchmarks/five_domains.py --per-domain 100 --out build/five-domains.jsonl

Hub datasets need no such file: `foresay eval MODEL --benchmarks paper`. The headerless CSV of MMLU does, and so does a
check that must run without a network. Prompts are taken evenly from each set, longer ones than `--longest` left out.
"""

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tyro

from foresay.data.benchmarks import Benchmark
from foresay.data.prompts import Prompt
from foresay.models.base.load import load_tokenizer

SETS = {
    "knowledge": ("knowledge/arc_challenge_test.jsonl",),
    "math": ("math/gsm8k_test.jsonl",),
    "code": ("code/humaneval.jsonl", "code/mbpp.jsonl,prompt=text"),
    "chat": ("chat/mt_bench.jsonl", "chat/ifeval.jsonl"),
    "safety": ("safety/xstest_prompts.csv",),
}


def prompts_of(data: Path, domain: str, longest: int) -> list[list[Prompt]]:
    """The prompts of each set of a domain, none longer than `longest` tokens of the embedded tokenizer."""
    tokenizer = load_tokenizer("nano")
    sets = [Benchmark.parse(f"{domain}={data / name}").prompts(tokenizer, 0) for name in SETS[domain]]
    return [[prompt for prompt in prompts if len(prompt.ids) <= longest] for prompts in sets]


def mmlu(data: Path, longest: int) -> list[Prompt]:
    """The validation questions of MMLU, all subjects, whose files have no header."""
    rows = [row for path in sorted((data / "knowledge/mmlu/val").glob("*.csv")) for row in csv.reader(path.open())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mmlu.jsonl"
        path.write_text("".join(f"{json.dumps({'question': row[0], 'choices': row[1:5]})}\n" for row in rows))
        found = Benchmark.parse(f"knowledge={path}").prompts(load_tokenizer("nano"), 0)
    return [prompt for prompt in found if len(prompt.ids) <= longest]


def chosen(data: Path, per_domain: int, longest: int) -> Iterator[Prompt]:
    """`per_domain` prompts of each domain, its sets in equal shares as far as they go."""
    for domain in SETS:
        sets = prompts_of(data, domain, longest) + ([mmlu(data, longest)] if domain == "knowledge" else [])
        left = per_domain
        for place, prompts in enumerate(sorted(sets, key=len)):
            share = min(-(-left // (len(sets) - place)), len(prompts))
            yield from prompts[:: max(len(prompts) // share, 1)][:share]
            left -= share


def main(out: Path, per_domain: int = 100, longest: int = 400) -> None:
    """Write the file.

    Args:
        out: File to write, JSONL.
        per_domain: Prompts of each domain.
        longest: Most tokens of a prompt.
    """
    data = Path(os.environ["FORESAY_DATA"])
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w") as file:
        for prompt in chosen(data, per_domain, longest):
            print(
                json.dumps({"prompt": prompt.text, "domain": prompt.domain, "benchmark": prompt.benchmark}), file=file
            )


if __name__ == "__main__":
    tyro.cli(main)
