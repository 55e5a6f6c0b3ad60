"""Print the tables of docs/experiments.md from result files of `foresay bench --json`.

python benchmarks/table.py benchmarks/results/nano-tokens-per-step.json --figure tokens_per_step
"""

import json
from pathlib import Path
from typing import Any, Literal

import tyro


def row_name(result: dict[str, Any]) -> str:
    return result["decoder"] + (f", k = {result['masks']}" if result["masks"] else "")


def main(
    file: tyro.conf.Positional[Path],
    figure: Literal["tokens_per_step", "tokens_per_second", "speedup_vs_plain", "speedup_vs_transformers"] = (
        "tokens_per_step"
    ),
) -> None:
    """One row a decoder, one column a domain; the last rows say what stands beside the figures.

    Args:
        file: Result file.
        figure: What to show.
    """
    results = json.loads(file.read_text())["results"]
    domains = list(dict.fromkeys(result["domain"] for result in results))
    print(f"| {figure.replace('_', ' ')} | {' | '.join(domains)} |\n|---|{'---|' * len(domains)}")
    for name in dict.fromkeys(map(row_name, results)):
        cells = {result["domain"]: f"{result[figure]:.2f}" for result in results if row_name(result) == name}
        print(f"| {name} | {' | '.join(cells[domain] for domain in domains)} |")
    loops = {result["domain"]: f"{result['repeated_4grams']:.0%}" for result in results}
    print(f"| repeated 4-grams in the base's own output | {' | '.join(loops[domain] for domain in domains)} |")
    ours = [result for result in results if result["decoder"] != "transformers"]
    same, asked = sum(result["identical"] for result in ours), sum(result["prompts"] for result in ours)
    print(f"\nOutputs identical to transformers' `generate`: {same} of {asked}.")


if __name__ == "__main__":
    tyro.cli(main)
