"""What `foresay advise` foretells against what `foresay bench` then measures, in one run on one machine.

python benchmarks/advised.py nano --dtype bfloat16 --out benchmarks/results/advised-bfloat16.json

An untrained adapter of the same settings is timed and its rates are foretold from the acceptance that the bench found,
so that the error is of the cost model alone. Ratios to plain decoding of the same source are compared; tokens a second
stand beside them. A bench also holds prefill, and batches that thin out at their end, which the forecast does not.
"""

import json
import statistics
from dataclasses import asdict
from pathlib import Path

import tyro

from foresay.advise import Offer, offers
from foresay.benchmark import Result, bench
from foresay.config import DType
from foresay.decoding.calibrate import calibrate, rounded
from foresay.model import MultiTokenModel
from foresay.prompts import embedded_prompts
from foresay.provenance import provenance
from foresay.stand import BenchConfig

SECONDS = 60.0
"""Most time for the costs at one batch size."""
MASKS = (1, 2, 3, 4)
"""Of the quadratic steps: those of the planner's menu."""


def compared(result: Result, offer: Offer) -> dict[str, float | str | int]:
    """One cell: what was foretold and what was measured, each over its own plain."""
    [entry] = [entry for entry in offer.entries if entry.label == result.label]
    foretold = entry.tokens_per_second / offer.plain.tokens_per_second
    return {
        "domain": result.domain,
        "batch_size": result.batch_size,
        "decoder": result.label,
        "foretold_speedup": foretold,
        "measured_speedup": result.speedup_vs_plain,
        "error": foretold / result.speedup_vs_plain - 1,
        "foretold_tokens_per_second": entry.tokens_per_second,
        "measured_tokens_per_second": result.tokens_per_second,
    }


def main(
    model: tyro.conf.Positional[str],
    out: Path,
    dtype: DType = "bfloat16",
    batch_sizes: tuple[int, ...] = (1, 4),
    per_domain: int = 4,
    repeats: int = 3,
) -> None:
    """Foretell, measure, compare.

    Args:
        model: Folder of a foresay model, or nano.
        out: File for the result, JSON.
        dtype: Dtype of the base.
        batch_sizes: Powers of two.
        per_domain: Embedded prompts of each domain.
        repeats: Times that the bench measures.
    """
    trained = MultiTokenModel.from_pretrained(model, dtype=dtype)
    fresh = MultiTokenModel.from_base(trained.base_name, trained.core.config, dtype=dtype)
    prompts = embedded_prompts(trained.require_tokenizer(), "test", per_domain)
    config = BenchConfig(("quadratic",), MASKS, batch_sizes, lookup_tokens=0, max_new_tokens=96, repeats=repeats)
    curves = {size: calibrate(fresh.core, *rounded(fresh.core, size, 128), SECONDS) for size in batch_sizes}
    measured = [result for result in bench(trained, prompts, config).results if result.decoder == "quadratic"]
    cells = []
    for result in measured:
        [offer] = offers([curves[result.batch_size]], {result.domain: result.acceptance_per_position})
        cells.append(compared(result, offer))
    errors = [abs(float(cell["error"])) for cell in cells]
    summary = {
        "median": statistics.median(errors),
        "largest": max(errors),
        "within 10 %": sum(e <= 0.1 for e in errors),
    }
    for cell in cells:
        print(
            "{domain:8} batch {batch_size:<2} {decoder:12} {foretold_speedup:.2f} {measured_speedup:.2f}".format(**cell)
        )
    print(summary, "of", len(cells))
    facts = provenance(base=trained.base_name, dtype=dtype, **asdict(config))
    out.write_text(json.dumps({"cells": cells, "summary": summary, "provenance": facts}, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
