"""The verb `advise`: will it pay here? Said before anything is trained.

Two inputs, as the planner has them: what steps cost on this machine, measured with an untrained adapter (what its
weights are changes no cost), and acceptance by domain, which is assumed: given, or read from results of `bench` or
`eval` on another model. The formula is `planner.expected_rate`.

Steps of all layouts take turns, round by round. A speed-up is the median, over the rounds, of the ratio within a round;
drafts pay where the 95 % interval of that median is above 1. That is the uncertainty of the costs: acceptance on other
texts is another matter.
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
from foresay.decoding.planning.planner import expected_rate
from foresay.decoding.step_costs import Curve, Forecast, Watch, forecast, unwatched
from foresay.evaluation.config import AdviseConfig
from foresay.evaluation.statistics import median_interval
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
    speedups: tuple[float, ...]
    """Of the layout with drafts that is expected to be fastest, over plain decoding, by the costs of each round."""

    @property
    def plain(self) -> Forecast:
        """Without drafts."""
        return self.entries[0]

    @property
    def drafting(self) -> Forecast:
        """The layout with drafts that is expected to be fastest."""
        return max(self.entries[1:], key=lambda entry: entry.tokens_per_second, default=self.plain)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the median of its speed-up lies (95 %), by the rounds; None: too few of them."""
        return median_interval(self.speedups)

    @property
    def pays(self) -> bool | None:
        """Whether drafts pay; None: too close to tell."""
        low, high = self.interval or (min(self.speedups), max(self.speedups))
        return None if low <= 1 <= high else low > 1

    @property
    def best(self) -> Forecast:
        """What should be taken: drafts where they surely pay, else plain decoding."""
        return self.drafting if self.pays else self.plain

    @property
    def speedup(self) -> float:
        """Of the best over plain: the median over the rounds."""
        return statistics.median(self.speedups) if self.pays else 1.0


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
        """The batch size from which on drafts pay at none that was measured; None: they pay at the largest."""
        own = self._of(domain, context_tokens)
        last = max((offer.batch_size for offer in own if offer.pays), default=0)
        return min((offer.batch_size for offer in own if offer.batch_size > last), default=None)

    def sizes(self, domain: str, context_tokens: int, pays: bool | None) -> list[int]:
        """The batch sizes measured at which drafts pay, do not (False), or may (None: too close to tell)."""
        return sorted(offer.batch_size for offer in self._of(domain, context_tokens) if offer.pays is pays)

    def _of(self, domain: str, context_tokens: int) -> list[Offer]:
        return [offer for offer in self.offers if (offer.domain, offer.context_tokens) == (domain, context_tokens)]

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it: one, with how sure it is."""
        close = [offer for offer in self.offers if offer.pays is None]
        best = max(self.offers, key=lambda offer: offer.speedup)
        if not best.pays:
            return (
                f"Too close to tell: drafts may pay in {len(close)} of {len(self.offers)} cases, and surely in none."
                if close
                else "It will not pay here: plain decoding is expected to be fastest everywhere."
            )
        paying = f"{sum(offer.pays is True for offer in self.offers)} of {len(self.offers)} cases"
        unsure = f" (too close to tell in {len(close)})" if close else ""
        same = [offer.speedup for offer in self.offers if offer.batch_size == best.batch_size]
        return (
            f"It should pay in {paying}{unsure}: at best {best.speedup:.2f} times plain decoding "
            f"({in_between(best)}{best.domain}, batch {best.batch_size}, {best.best.label}), "
            f"{statistics.geometric_mean(same):.2f} times on average of the domains at that batch size."
        )


def in_between(offer: Offer) -> str:
    """The interval of a speed-up in words, with a comma after it; empty where there is none."""
    return "" if offer.interval is None else f"95 %: {offer.interval[0]:.2f} to {offer.interval[1]:.2f}, "


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
    return tuple(_offer(curve, domain, known) for curve in curves for domain, known in acceptance.items())


def _offer(curve: Curve, domain: str, known: Sequence[float]) -> Offer:
    entries = tuple(found for found in forecast(curve, known) if not found.entry.lookup)
    found = Offer(domain, curve.batch_size, curve.context_tokens, entries, ())
    entry, plain = found.drafting.entry, found.plain.entry
    rates = [
        [expected_rate(one, costs[one], known) for one in (entry, plain)] for costs in curve.rounds or (curve.costs,)
    ]
    return replace(found, speedups=tuple(drafting / plainly for drafting, plainly in rates))


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
