"""Print the tables of docs/experiments/ from result files of `foresay bench --json`.

python benchmarks/table.py benchmarks/results/former/nano-tokens-per-step.json --figure tokens_per_step
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import tyro

FOREIGN = ("transformers", "prompt lookup")
Figure = Literal["tokens_per_step", "tokens_per_second", "speedup_vs_plain", "speedup_vs_transformers", "efficiency"]


def row_name(result: dict[str, Any]) -> str:
    return result["decoder"] + (f", k = {result['masks']}" if result["masks"] else "")


def case(result: dict[str, Any]) -> str:
    """Batch size and prompt length; files from before there were several have no length."""
    length = result.get("lengthened_to", 0)
    return f"batch {result['batch_size']}, prompts {f'of {length} tokens' if length else 'as they are'}"


def print_table(results: list[dict[str, Any]], figure: Figure) -> None:
    domains = list(dict.fromkeys(result["domain"] for result in results))
    print(f"| {figure.replace('_', ' ')} | {' | '.join(domains)} |\n|---|{'---|' * len(domains)}")
    for name in dict.fromkeys(map(row_name, results)):
        cells = {result["domain"]: f"{result[figure]:.2f}" for result in results if row_name(result) == name}
        print(f"| {name} | {' | '.join(cells[domain] for domain in domains)} |")
    loops = {result["domain"]: f"{result['repeated_4grams']:.0%}" for result in results}
    print(f"| repeated 4-grams in the base's own output | {' | '.join(loops[domain] for domain in domains)} |")


def main(file: tyro.conf.Positional[Path], figure: Figure = "tokens_per_step") -> None:
    """One row a decoder, one column a domain; the last rows say what stands beside the figures.

    Args:
        file: Result file.
        figure: What to show.
    """
    results = json.loads(file.read_text())["results"]
    for name, own in groupby(results, case):
        print(f"\n{name}\n")
        print_table(list(own), figure)
    ours = [result for result in results if result["decoder"] not in FOREIGN]
    same, asked = sum(result["identical"] for result in ours), sum(result["prompts"] for result in ours)
    print(f"\nOutputs identical to transformers' `generate`: {same} of {asked}.")


if __name__ == "__main__":
    tyro.cli(main)
