"""The verb `advise`: will it pay here? Said before anything is trained.

Two inputs, as the planner has them: what steps cost on this machine, measured with an untrained adapter (what its
weights are changes no cost), and acceptance by domain, which is assumed: given, or read from results of `bench` or
`eval` on another model. The formula is `planner.expected_rate`.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch

from foresay.data.example import Example
from foresay.decoding.step_costs import Curve, Forecast, Watch, forecast, unwatched
from foresay.evaluation.config import AdviseConfig
from foresay.foundation.errors import DataError, in_words, require
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop.progress import Progress
from foresay.training.loop.trainer import Trainer
from foresay.training.objectives.masks import MaskObjective

ASSUMED = Path(__file__).with_name("acceptance.json")
"""Acceptance of the embedded adapter by domain, from `benchmarks/results` (`benchmarks/assumed.py`)."""
GIVEN = "given"
"""What acceptance given as numbers is called instead of a domain."""
TRIED_STEPS = 4
"""Training steps that are timed; the first, which warms up, does not count."""

Acceptance = Mapping[str, tuple[float, ...]]
"""By domain: the share of steps that keep the j-th draft."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one domain can expect at one batch size and context length."""

    domain: str
    batch_size: int
    context_tokens: int
    entries: tuple[Forecast, ...]

    @property
    def plain(self) -> Forecast:
        """Without drafts."""
        return self.entries[0]

    @property
    def best(self) -> Forecast:
        """What is expected to be fastest."""
        return max(self.entries, key=lambda entry: entry.tokens_per_second)

    @property
    def speedup(self) -> float:
        """Of the best over plain."""
        return self.best.tokens_per_second / self.plain.tokens_per_second


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What training would take here."""

    steps: int
    seconds_per_step: float
    """Median of a few steps, on random tokens of the longest length."""

    @property
    def seconds(self) -> float:
        """Of the whole run, decodes and checkpoints apart."""
        return self.steps * self.seconds_per_step


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured, and what follows."""

    offers: tuple[Offer, ...]
    acceptance: Acceptance
    assumed_from: str
    training: TrainingCost
    provenance: dict[str, Any]

    def break_even(self, domain: str, context_tokens: int) -> int | None:
        """The batch size from which on plain decoding is best at all that were measured; None: not at the largest."""
        own = {
            offer.batch_size
            for offer in self.offers
            if (offer.domain, offer.context_tokens) == (domain, context_tokens)
        }
        last = max(self.pays_at(domain, context_tokens), default=0)
        return min((size for size in own if size > last), default=None)

    def pays_at(self, domain: str, context_tokens: int) -> list[int]:
        """The batch sizes measured at which drafts are expected to pay; at the others plain decoding is best."""
        own = [offer for offer in self.offers if (offer.domain, offer.context_tokens) == (domain, context_tokens)]
        return sorted(offer.batch_size for offer in own if offer.best != offer.plain)

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        best = max(self.offers, key=lambda offer: offer.speedup)
        if best.best == best.plain:
            return "It will not pay here: plain decoding is expected to be fastest everywhere."
        mean = statistics.mean(offer.speedup for offer in self.offers if offer.batch_size == best.batch_size)
        return (
            f"It will pay here: expected are up to {best.speedup:.2f} times plain decoding ({best.domain}, batch "
            f"{best.batch_size}, {best.best.label}), {mean:.2f} times on average of the domains at that batch size."
        )


def advise(
    model: MultiTokenModel,
    config: AdviseConfig,
    train: TrainConfig,
    losses: LossConfig | None = None,
    watch: Watch = unwatched,
) -> Advice:
    """Measure the base of `model`, whose adapter is fresh, and forecast. Raises DataError for results that are none."""
    known, source = assumed(config)
    curves = model.step_costs(product(config.batch_sizes, config.contexts), watch, config.seconds)
    settings = {name: value for name, value in asdict(config).items() if name != "results"}
    return Advice(
        offers=offers(curves, known),
        acceptance=known,
        assumed_from=source,
        training=training_cost(model, train, losses or LossConfig()),
        provenance=provenance(**model.described, mtp=asdict(model.config), **settings),
    )


def offers(curves: Sequence[Curve], acceptance: Acceptance) -> tuple[Offer, ...]:
    """Every domain on every curve; not what a prompt lookup may find, which depends on the text."""
    return tuple(
        Offer(
            domain,
            curve.batch_size,
            curve.context_tokens,
            tuple(found for found in forecast(curve, known) if not found.entry.lookup),
        )
        for curve in curves
        for domain, known in acceptance.items()
    )


def assumed(config: AdviseConfig) -> tuple[Acceptance, str]:
    """Acceptance by domain, and in words where it comes from."""
    if config.acceptance:
        return {GIVEN: config.acceptance}, "as given"
    path = config.results or ASSUMED
    failed, cure = f"{path} holds no results with acceptance", "give JSON of foresay bench or eval"
    with in_words(DataError, failed, cure, ValueError, KeyError, TypeError, AttributeError):
        found = acceptance_of(json.loads(path.read_text(encoding="utf-8")))
    if not found:
        raise DataError(f"{path} holds no acceptance of quadratic decoding; give JSON of foresay bench or eval")
    return found, f"of {path.name}" if config.results else "of the embedded adapter on its own domains"


def acceptance_of(content: dict[str, Any]) -> Acceptance:
    """By domain, at most masks, in quadratic: from JSON of `bench` or of `eval`, or domains with their shares."""
    if "results" in content:
        rows = [row for row in content["results"] if row["decoder"] == "quadratic"]
        by_row = {id(row): row["acceptance_per_position"] for row in rows}
    elif "rows" in content:
        layout = content.get("provenance", {}).get("settings", {}).get("layout", "quadratic")
        require(layout == "quadratic", f"the results are of {layout} decoding; give quadratic ones")
        rows = content["domains"]
        by_row = {id(row): [entry["unconditional"] for entry in row["acceptance"]] for row in rows}
    else:
        return {domain: tuple(shares) for domain, shares in content["acceptance"].items()}
    # The last of a domain has most masks: rows are sorted by them.
    return {row["domain"]: tuple(by_row[id(row)]) for row in sorted(rows, key=lambda row: int(row["masks"]))}


def training_cost(model: MultiTokenModel, train: TrainConfig, losses: LossConfig) -> TrainingCost:
    """Time a few steps of training on random tokens; the adapter of `model` is trained by them."""
    random = torch.Generator().manual_seed(train.seed)
    length = min(train.max_length, model.base.context)
    drawn = torch.randint(model.base.vocabulary, (train.sequences, length), generator=random)
    answer = tuple(place >= length // 4 for place in range(length))
    examples = [Example(tuple(row), answer) for row in drawn.tolist()]
    marks: list[float] = []

    def mark(progress: Progress) -> bool:
        marks.append(progress.seconds)
        return False

    tried = replace(train, steps=TRIED_STEPS, save_every=0, eval_every=0, curriculum_steps=0)
    Trainer(MaskObjective(model.mask_model, examples, tried, losses), tried, mark).run()
    return TrainingCost(train.steps, statistics.median(b - a for a, b in pairwise(marks)))
