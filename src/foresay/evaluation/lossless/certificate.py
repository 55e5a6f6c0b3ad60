"""What `check` found, as facts: every divergence, the counts of every setting, and how sure they are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from foresay.decoding.config import LayoutName
from foresay.decoding.metrics import rates_of_domains, tally
from foresay.decoding.steps import Generation
from foresay.evaluation.statistics import at_most
from foresay.models.artefact.fingerprint import Fingerprints


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where an accelerated answer leaves the plain one."""

    prompt: int
    """Index of the prompt, from 0."""
    domain: str
    layout: LayoutName
    batch_size: int
    position: int
    """Index of the generated token, from 0."""
    plain_token: int | None
    accelerated_token: int | None
    """None: this answer had ended there."""
    margin: float
    """Between the base's best logit there and that of the worse of the two tokens."""
    bound: float
    """Largest margin that rounding in this dtype explains."""
    diverges_in_float32: bool
    """The whole run of this prompt, repeated in float32 with the prompts it shared its batch with, diverges too."""
    verdict: Literal["tie", "bug"]


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Plain decoding against plain decoding, in the same run: transformers' answers in batches and each alone."""

    batch_size: int
    prompts: int
    differing: int
    """Prompts whose two answers are not the same."""

    @property
    def sentence(self) -> str:
        """As a person would say it."""
        return (
            f"Noise floor: of transformers' own answers, {self.differing} of {self.prompts} "
            f"({self.differing / self.prompts:.1%}) change when it answers {self.batch_size} prompts together instead "
            "of one."
        )


@dataclass(frozen=True, slots=True)
class Count:
    """One layout at one batch size."""

    layout: LayoutName
    batch_size: int
    answers: int
    tokens: int
    steps: int
    tokens_per_step: float
    domains_tokens_per_step: dict[str, float]
    identical: int
    """Answers equal to plain decoding token for token."""
    ties: int
    bugs: int
    bugs_at_most: float
    """Largest share of answers with a bug that these counts leave possible, with 95 % confidence."""

    @classmethod
    def of(
        cls,
        layout: LayoutName,
        batch_size: int,
        said: Sequence[Generation],
        found: Sequence[Divergence],
        domains: Sequence[str],
    ) -> "Count":
        """The counts of `said`, of which `found` diverged; `domains` names that of each answer."""
        counted, verdicts = tally(said), Counter(divergence.verdict for divergence in found)
        return cls(
            layout=layout,
            batch_size=batch_size,
            answers=len(said),
            tokens=counted.tokens,
            steps=counted.steps,
            tokens_per_step=counted.tokens_per_step,
            domains_tokens_per_step=rates_of_domains(domains, said),
            identical=len(said) - len(found),
            ties=verdicts["tie"],
            bugs=verdicts["bug"],
            bugs_at_most=at_most(verdicts["bug"], len(said)),
        )


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was checked and found."""

    prompts: int
    domains: dict[str, int]
    """Prompts of each domain."""
    tokens: int
    """Tokens of the accelerated answers, all settings together."""
    dtype: str
    identical: int
    """Answers equal to plain decoding token for token."""
    answers: int
    """Prompts times layouts times batch sizes."""
    ties: int
    bugs: int
    bugs_at_most: float
    """Largest share of prompts with a bug in any setting that is left possible, with 95 % confidence."""
    divergences_at_most: float
    """The same for prompts that diverge at all."""
    tokens_per_step: dict[str, float]
    """By layout."""
    counts: tuple[Count, ...]
    divergences: tuple[Divergence, ...]
    fingerprints: Fingerprints
    noise: NoiseFloor | None = None
    """What plain decoding itself differs by; None where no answer differs."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        if self.bugs:
            return f"NOT lossless: {self.bugs} of {self.answers} answers differ and rounding does not explain it."
        ties = f", {self.ties} differ by a tie that {self.dtype} rounding explains" if self.ties else ""
        return f"Lossless: {self.identical} of {self.answers} answers are identical to plain decoding{ties}."

    @property
    def surety(self) -> str:
        """How sure the verdict is, in words; prompts are counted, for answers to one prompt are correlated."""
        differing = len({found.prompt for found in self.divergences})
        wrong = len({found.prompt for found in self.divergences if found.verdict == "bug"})
        noise = f". {self.noise.sentence.rstrip('.')}" if self.noise is not None else ""
        return (
            f"Of {self.prompts} prompts {wrong} have a bug and {differing} differ at all: with 95 % confidence at most "
            f"{self.bugs_at_most:.2%} and {self.divergences_at_most:.2%} of such prompts do{noise}"
        )


def certificate(
    counts: Sequence[Count],
    divergences: Sequence[Divergence],
    domains: dict[str, int],
    **facts: Any,
) -> Certificate:
    """Add up the settings; `facts` are dtype, fingerprints and provenance."""
    prompts, tokens, steps = sum(domains.values()), Counter[str](), Counter[str]()
    for count in counts:
        tokens[count.layout] += count.tokens
        steps[count.layout] += count.steps
    wrong = {found.prompt for found in divergences if found.verdict == "bug"}
    return Certificate(
        prompts=prompts,
        domains=domains,
        tokens=tokens.total(),
        identical=sum(count.identical for count in counts),
        answers=sum(count.answers for count in counts),
        ties=sum(count.ties for count in counts),
        bugs=sum(count.bugs for count in counts),
        bugs_at_most=at_most(len(wrong), prompts),
        divergences_at_most=at_most(len({found.prompt for found in divergences}), prompts),
        tokens_per_step={layout: tokens[layout] / steps[layout] for layout in tokens},
        counts=tuple(counts),
        divergences=tuple(divergences),
        **facts,
    )
