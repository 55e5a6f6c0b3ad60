"""Print paper A's Table 1 beside ours, row by row, from result files.

python benchmarks/paper_table.py benchmarks/results/acceptance/smollm2-table1.json \
    benchmarks/results/acceptance/smollm2-quadratic-1-4.json benchmarks/results/acceptance/smollm2-linear-1-4.json

The first file is one of `foresay eval`, which counts by the paper's protocol and on whole answers, with intervals
(95 %, bootstrap over prompts). Files of `foresay bench` after it add a table by domain; they hold sums alone, so no
intervals.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

KNOWLEDGE, MATH, CODE, CHAT, SAFETY = "knowledge", "math", "code", "chat", "safety"
PAPER = {
    ("MMLU", KNOWLEDGE, "mmlu"): (1.54, 1.87, 2.06, 2.18, 2.26, 2.32, 2.36, 2.38),
    ("PopQA", KNOWLEDGE, ""): (1.48, 1.69, 1.80, 1.85, 1.88, 1.90, 1.91, 1.91),
    ("TruthfulQA", KNOWLEDGE, ""): (1.55, 1.84, 2.00, 2.08, 2.13, 2.16, 2.18, 2.19),
    ("GSM8k", MATH, "gsm8k"): (1.84, 2.58, 3.21, 3.75, 4.20, 4.60, 4.95, 5.22),
    ("HumanEval", CODE, "humaneval"): (1.86, 2.63, 3.30, 3.87, 4.40, 4.79, 5.14, 5.35),
    ("AlpacaEval", CHAT, ""): (1.61, 1.97, 2.18, 2.31, 2.40, 2.45, 2.49, 2.52),
    ("IFEval", CHAT, "ifeval"): (1.55, 1.86, 2.05, 2.16, 2.24, 2.30, 2.36, 2.39),
    ("XSTest", SAFETY, "xstest"): (1.70, 2.11, 2.38, 2.52, 2.67, 2.73, 2.76, 2.79),
    ("HarmBench", SAFETY, ""): (1.78, 2.35, 2.76, 2.99, 3.28, 3.39, 3.45, 3.51),
    ("Do-Anything-Now", SAFETY, ""): (1.69, 2.29, 2.85, 3.04, 3.21, 3.23, 3.64, 3.72),
    ("JailbreakTrigger", SAFETY, ""): (1.77, 2.31, 2.76, 3.02, 3.31, 3.41, 3.48, 3.54),
    ("WildJailbreakTest", SAFETY, ""): (1.71, 2.18, 2.47, 2.64, 2.79, 2.84, 2.88, 2.91),
    ("WildGuardTest", SAFETY, ""): (1.69, 2.12, 2.39, 2.54, 2.67, 2.72, 2.76, 2.79),
}
"""Tokens per step at 1 to 8 masks (arXiv 2507.11851, Table 1) by row, domain, and our name of the same benchmark."""
OURS_ALONE = ((CODE, "mbpp"), (CHAT, "mt_bench"), (KNOWLEDGE, "arc_challenge"))
"""Benchmarks that the paper has not."""
Table = Iterable[Sequence[str]]


def paper_mean(domain: str, masks: int) -> float:
    """Mean of the paper's rows of a domain."""
    rows = [values[masks - 1] for (_, of, _), values in PAPER.items() if of == domain]
    return sum(rows) / len(rows)


def benchmark_rows(rows: Sequence[dict[str, Any]], masks: Sequence[int]) -> Table:
    """The paper's rows that we have too, ours below each; then ours alone."""
    pairs = [(name, domain, own, values) for (name, domain, own), values in PAPER.items() if own]
    for name, domain, own, values in [*pairs, *((own, domain, own, ()) for domain, own in OURS_ALONE)]:
        if values:
            yield [name, "paper, 8B", "", *(f"{values[k - 1]:.2f}" for k in masks)]
        mine = {row["masks"]: row for row in rows if (row["domain"], row["benchmark"]) == (domain, own)}
        for label, which in (("ours, first 100 steps", "paper"), ("ours, whole answers", "whole")):
            yield [name, label, str(mine[masks[0]]["prompts"]), *(cell(mine[k][which]) for k in masks)]


def cell(rate: dict[str, float]) -> str:
    return f"{rate['value']:.2f} ({rate['low']:.2f} to {rate['high']:.2f})"


def domain_rows(benches: Sequence[dict[str, Any]], masks: Sequence[int]) -> Table:
    """Each domain: the mean of the paper's rows, and what each layout gave."""
    results = [result for bench in benches for result in bench["results"] if result["masks"]]
    for domain in dict.fromkeys(result["domain"] for result in results):
        yield [domain, "paper, quadratic", "", *(f"{paper_mean(domain, k):.2f}" for k in masks)]
        own = [result for result in results if result["domain"] == domain]
        for layout in dict.fromkeys(result["decoder"] for result in own):
            rates = {result["masks"]: result for result in own if result["decoder"] == layout}
            figures = (f"{rates[k]['tokens_per_step']:.2f}" if k in rates else "" for k in masks)
            yield [domain, f"ours, {layout}", str(max(result["prompts"] for result in rates.values())), *figures]


def missing() -> str:
    return ", ".join(name for name, _, own in PAPER if not own)


def print_table(title: str, masks: Sequence[int], rows: Table) -> None:
    heads = ["", "", "prompts", *(f"k = {k}" for k in masks)]
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="file of `foresay eval`")
    parser.add_argument("benches", type=Path, nargs="*", help="files of `foresay bench`")
    asked = parser.parse_args()
    found = json.loads(asked.evaluation.read_text())
    masks = sorted({row["masks"] for row in found["rows"]})
    settings = found["provenance"]["settings"]
    title = f"By benchmark, {settings['layout']}; whole answers have at most {settings['max_new_tokens']} tokens"
    print_table(title, masks, benchmark_rows(found["rows"], masks))
    print(f"\nRows of the paper that we have no prompts of: {missing()}.")
    if asked.benches:
        benches = [json.loads(path.read_text()) for path in asked.benches]
        counts = sorted({result["masks"] for bench in benches for result in bench["results"] if result["masks"]})
        print_table("By domain", counts, domain_rows(benches, counts))


if __name__ == "__main__":
    main()
