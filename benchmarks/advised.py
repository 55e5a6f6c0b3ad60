"""What `foresay advise` foretells against what `foresay bench` then measures, in one run on one machine.

python benchmarks/advised.py nano --dtype bfloat16 --out benchmarks/results/seconds/advised-bfloat16.json

An untrained adapter of the same settings is timed and its rates are foretold from the acceptance that was measured, so
that the error is of the cost model alone. Two measurements, each with its own plain decoding: `full` are the steps of
batches while nobody has left them, as a server under load has them and the forecast means them; `whole` is the bench,
which holds prefill and batches that thin out at their end too.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import tyro

from foresay.data.prompts import by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation, Step
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed.advise import Offer, offers
from foresay.evaluation.speed.bench import bench
from foresay.evaluation.speed.timed_runs import Case
from foresay.foundation.files import write_json
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.config import DType
from foresay.models.drafting import DraftingModel

SECONDS = 60.0
"""Most time for the costs at one batch size."""
MASKS = (1, 2, 3, 4)
"""Of the quadratic steps: those of the planner's menu."""
TOKENS = 96
"""Most tokens of an answer."""


@dataclass
class Full:
    """Steps of full batches, after the one that reads the prompts."""

    seconds: float = 0.0
    said: list[Generation] = field(default_factory=list)

    def run(self, core: DraftingModel, batch: Sequence[Sequence[int]], config: DecodeConfig) -> None:
        """Decode a batch until its first sequence ends."""
        session = Session(core, batch, config)
        session.step()
        steps: dict[int, list[Step]] = {live.index: [] for live in session.live}
        while session.live and len(session.live) == len(batch):
            began = perf_counter()
            kept = session.step()
            self.seconds += perf_counter() - began
            for index, step in kept:
                steps[index].append(step)
        self.said += [Generation(tuple(own), "length") for own in steps.values()]

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return tally(self.said).tokens / self.seconds


def full_batches(core: DraftingModel, case: Case, repeats: int) -> dict[int, tuple[float, list[float]]]:
    """By masks: the median speed-up over plain within a repeat, and acceptance by position; decoders take turns."""
    turns: dict[int, list[Full]] = {masks: [] for masks in (0, *MASKS)}
    for repeat in range(-1, repeats):  # -1 is the warm-up
        for masks in list(turns)[:: 1 if repeat % 2 else -1]:
            config = DecodeConfig(layout="quadratic" if masks else "plain", masks=masks, max_new_tokens=TOKENS)
            turn = Full()
            for batch in case.batches:
                turn.run(core, batch, config)
            if repeat >= 0:
                turns[masks].append(turn)
    return {
        masks: (
            statistics.median(one.rate / plain.rate for one, plain in zip(turns[masks], turns[0])),
            tally(turns[masks][0].said).acceptance_per_position,
        )
        for masks in MASKS
    }


def cell(how: str, case: Case, label: str, measured: float, offer: Offer) -> dict[str, Any]:
    """What was foretold and what was measured, each over its own plain."""
    [entry] = [entry for entry in offer.entries if entry.label == label]
    foretold = entry.tokens_per_second / offer.plain.tokens_per_second
    return {
        "how": how,
        "domain": case.domain,
        "batch_size": case.batch_size,
        "decoder": label,
        "foretold_speedup": foretold,
        "measured_speedup": measured,
        "error": foretold / measured - 1,
    }


def summary(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors of the cells, by measurement and batch size."""
    found = {}
    for how, size in dict.fromkeys((one["how"], one["batch_size"]) for one in cells):
        errors = [abs(one["error"]) for one in cells if (one["how"], one["batch_size"]) == (how, size)]
        found[f"{how}, batch {size}"] = {
            "median": statistics.median(errors),
            "largest": max(errors),
            "within 10 %": sum(error <= 0.1 for error in errors),
            "of": len(errors),
        }
    return found


def main(
    model: tyro.conf.Positional[str],
    out: Path,
    dtype: DType = "bfloat16",
    batch_sizes: tuple[int, ...] = (1, 4),
    per_domain: int = 8,
    repeats: int = 3,
) -> None:
    """Foretell, measure, compare.

    Args:
        model: Folder of a foresay model, or nano.
        out: File for the result, JSON.
        dtype: Dtype of the base.
        batch_sizes: Powers of two.
        per_domain: Embedded prompts of each domain.
        repeats: Times that each is measured.
    """
    trained = MultiTokenModel.from_pretrained(model, dtype=dtype)
    fresh = MultiTokenModel.from_base(trained.base_name, trained.config, dtype=dtype)
    prompts = embedded_prompts(trained.require_tokenizer(), "test", per_domain)
    config = BenchConfig(("quadratic",), MASKS, batch_sizes, lookup_tokens=0, max_new_tokens=TOKENS, repeats=repeats)
    curves = {size: fresh.step_costs([(size, 128)], seconds=SECONDS)[0] for size in batch_sizes}
    cases = [
        Case(domain, 0, size, tuple(prompt.ids for prompt in group))
        for size in batch_sizes
        for domain, group in by_domain(prompts).items()
    ]
    cells = []
    for case in cases:
        for masks, (speedup, acceptance) in full_batches(trained.mask_model, case, repeats).items():
            [offer] = offers([curves[case.batch_size]], {"": tuple(acceptance)})
            cells.append(cell("full", case, f"quadratic {masks}", speedup, offer))
    for result in bench(trained, prompts, config).results:
        if result.decoder == "quadratic":
            case = next(one for one in cases if (one.domain, one.batch_size) == (result.domain, result.batch_size))
            [offer] = offers([curves[case.batch_size]], {"": result.acceptance_per_position})
            cells.append(cell("whole", case, result.label, result.speedup_vs_plain, offer))
    for one in cells:
        shown = "{how:5} {domain:8} batch {batch_size:<2} {decoder:12} {foretold_speedup:.2f} {measured_speedup:.2f}"
        print(shown.format(**one))
    facts = provenance(base=trained.base_name, dtype=dtype, **asdict(config))
    made = {"cells": cells, "summary": summary(cells), "provenance": facts}
    print(json.dumps(made["summary"], indent=1))
    write_json(out, made)


if __name__ == "__main__":
    tyro.cli(main)
