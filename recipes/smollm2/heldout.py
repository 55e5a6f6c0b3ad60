"""Held-out prompts in five domains, drawn once from benchmarks that no adapter of ours is trained on.

    FORESAY_DATA=... python recipes/smollm2/heldout.py --out src/foresay/data/embedded_prompts/five_domains
    FORESAY_DATA=... python recipes/smollm2/heldout.py --out build/check --dev 20 --test 80

The first command writes what the package ships: a file a domain, a prompt a row, half of the rows from each benchmark
of the domain. With larger numbers a file begins with the same prompts. `AVOID` keeps out what sounds like a training
prompt that was written for this project (`prompts.py` beside).
"""

import csv
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import tyro

SEED = 19
LONGEST = 1500
"""Characters of a prompt, at most."""
MBPP_TEST = range(11, 511)
TWICE = (216, 217, 248)
"""Tasks of MBPP's test split that stand outside of it once more."""
AVOID = re.compile(
    r"\b(kill|shoot|beat|blow up|smash|execut|terminat|hang|steal|burn|crack|attack|destroy)", re.IGNORECASE
)
"""Words that XSTest plays on and some training prompts do too ("How can I beat my friend at chess?")."""
COMPLETE = "Complete the following Python function:\n\n```python\n{}\n```"
TESTS = "{}\nYour code should pass these tests:\n{}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user says, and the benchmark that it is from."""

    benchmark: str
    text: str


def rows(path: Path) -> list[dict[str, Any]]:
    """Of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def gsm8k(data: Path) -> Iterator[str]:
    """Questions of the test split."""
    return (row["question"] for row in rows(data / "math/gsm8k_test.jsonl"))


def humaneval(data: Path) -> Iterator[str]:
    """Signatures and documentation to be completed."""
    return (COMPLETE.format(row["prompt"].strip()) for row in rows(data / "code/humaneval.jsonl"))


def mbpp(data: Path) -> Iterator[str]:
    """Tasks of the test split with their tests, as the benchmark asks them."""
    for row in rows(data / "code/mbpp.jsonl"):
        if row["task_id"] in MBPP_TEST and row["task_id"] not in TWICE:
            yield TESTS.format(row["text"], "\n".join(row["test_list"]))


def mt_bench(data: Path) -> Iterator[str]:
    """First turns."""
    return (row["turns"][0] for row in rows(data / "chat/mt_bench.jsonl"))


def ifeval(data: Path) -> Iterator[str]:
    """Instructions whose keeping can be verified."""
    return (row["prompt"] for row in rows(data / "chat/ifeval.jsonl"))


def arc(data: Path) -> Iterator[str]:
    """Questions of the challenge's test split with their choices."""
    for row in rows(data / "knowledge/arc_challenge_test.jsonl"):
        yield _with_choices(row["question"], zip(row["choices"]["label"], row["choices"]["text"]))


def mmlu(data: Path) -> Iterator[str]:
    """Questions of all subjects' validation split with their choices."""
    for path in sorted((data / "knowledge/mmlu/val").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for question, *choices, _ in csv.reader(file):
                yield _with_choices(question, zip("ABCD", choices))


def xstest(data: Path) -> Iterator[str]:
    """Prompts that sound unsafe and are safe to answer; those that are not are left out of what is shipped."""
    with (data / "safety/xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["label"] == "safe" and not AVOID.search(row["prompt"]):
                yield row["prompt"]


def _with_choices(question: str, choices: Any) -> str:
    return "\n".join([question, *(f"{label}. {text}" for label, text in choices)])


DOMAINS = {
    "math": {"gsm8k": gsm8k},
    "code": {"humaneval": humaneval, "mbpp": mbpp},
    "chat": {"mt_bench": mt_bench, "ifeval": ifeval},
    "knowledge": {"arc_challenge": arc, "mmlu": mmlu},
    "safety": {"xstest": xstest},
}


def drawn(domain: str, data: Path) -> list[Asked]:
    """Every prompt of a domain's benchmarks that is short enough, in an order drawn once, its benchmarks in turn."""
    orders = []
    for name, read in DOMAINS[domain].items():
        texts = sorted({text for text in read(data) if len(text) <= LONGEST})
        orders.append([Asked(name, text) for text in random.Random(f"{SEED} {name}").sample(texts, len(texts))])
    return list(chain.from_iterable(zip(*orders)))


def main(out: Path, dev: int = 20, test: int = 40) -> None:
    """Write the files.

    Args:
        out: Folder to write to.
        dev: Prompts of a domain to choose settings on.
        test: Prompts of a domain to report.
    """
    if "FORESAY_DATA" not in os.environ:
        raise SystemExit("set FORESAY_DATA to the folder with the public data sets")
    out.mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        chosen = drawn(domain, Path(os.environ["FORESAY_DATA"]))[: dev + test]
        lines = [
            {
                "id": f"{domain}-{number}",
                "split": "dev" if number < dev else "test",
                "domain": domain,
                "benchmark": asked.benchmark,
                "messages": [{"role": "user", "content": asked.text}],
            }
            for number, asked in enumerate(chosen)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (out / f"{domain}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
