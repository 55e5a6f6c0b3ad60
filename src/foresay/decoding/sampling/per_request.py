"""Sequences with rules of their own in one batch: some greedy, some sampled, each as it would be alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from foresay.decoding.config import PenaltyConfig, SampleConfig
from foresay.decoding.sampling.chooser import Chooser, Drafts, Greedy, Sampled
from foresay.decoding.sampling.draft import Blocks, draft_greedy
from foresay.decoding.sampling.logits_processors import Processing, penalties, warpers
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, together
from foresay.models.base.transfer import to_device
from foresay.models.drafting import DraftingModel


@dataclass(frozen=True, slots=True)
class Rule:
    """How the tokens of a sequence are chosen, seed apart; sequences under equal rules are judged together."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    prompt: int = 0
    """Tokens that no penalty counts; 0 where there is none."""

    @classmethod
    def of(cls, sample: SampleConfig, penalties: PenaltyConfig, prompt: int) -> "Rule":
        """The rule for a prompt of so many tokens, without what makes no difference."""
        sample = replace(sample, seed=0) if sample.temperature else SampleConfig()
        return cls(sample, penalties, 0 if penalties == PenaltyConfig() else prompt)

    def chooser(self, rng: SeededNumbers) -> Chooser:
        """The chooser of sequences under this rule."""
        processing = _processing(self)
        return Sampled(rng, processing, greedy_drafts=True) if self.sample.temperature else Greedy(processing)


@lru_cache(maxsize=256)
def _processing(rule: Rule) -> Processing:
    return Processing((*penalties(rule.penalties, rule.prompt), *warpers(rule.sample)))


Group = tuple[Chooser, list[int]]
"""The chooser of a rule, and the places of its sequences."""


@dataclass(slots=True)
class Mixed(Chooser):
    """Each sequence under its own rule.

    Drafts are the sampler head's best tokens for all alike, never drawn. So each token that is sampled takes one draw
    of its own generator, as in plain decoding: with a seed a text is the same whatever shares its steps.
    """

    rules: list[Rule] = field(default_factory=list)
    """One for each live sequence."""
    rng: SeededNumbers = field(default_factory=lambda: SeededNumbers.seeded(()))

    @property
    def rule(self) -> Hashable:
        """See `Chooser.rule`; None where the sequences have several."""
        return self._one.rule if len(set(self.rules)) == 1 else None

    def recorded(self, numbers: Tensor) -> Chooser:
        """See `Chooser.recorded`."""
        return self._one.recorded(numbers)

    def numbers(self, most: int) -> Tensor | None:
        """See `Chooser.numbers`."""
        return self._one.numbers(most)

    def begin(self, most: int, device: torch.device) -> None:
        """See `Chooser.begin`."""
        self.rng.begin(most, device)

    def scores(self, logits: Tensor, asked: DraftsToVerify) -> Tensor:
        """See `Chooser.scores`."""
        groups = self._groups()
        if len(groups) == 1:
            return groups[0][0].scores(logits, asked)
        parts = [chooser.scores(logits[_on(logits, some)], asked.of(some)) for chooser, some in groups]
        return torch.cat(parts)[_back(groups, logits.device)]

    def judge(self, scores: Tensor, asked: DraftsToVerify) -> Verification:
        """See `Chooser.judge`."""
        groups = self._groups()
        if len(groups) == 1:
            return groups[0][0].judge(scores, asked)
        verdicts = [chooser.judge(scores[_on(scores, some)], asked.of(some)) for chooser, some in groups]
        return together(verdicts).select(_back(groups, scores.device))

    def explain(self, logits: Tensor, asked: DraftsToVerify) -> None:
        """See `Chooser.explain`."""
        for chooser, places in self._groups():
            chooser.explain(logits[places], asked.of(places))

    def settle(self, used: Sequence[int]) -> None:
        """See `Chooser.settle`."""
        self.rng.settle(used)

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`."""
        return Drafts(draft_greedy(model, blocks))

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.rules = [self.rules[place] for place in sequences]
        self.rng.select(sequences)

    def join(self, other: Chooser) -> None:
        """See `Chooser.join`."""
        assert isinstance(other, Mixed)
        self.rules += other.rules
        self.rng.join(other.rng)

    @property
    def _one(self) -> Chooser:
        """The chooser of all, where their rules are equal."""
        return self.rules[0].chooser(self.rng)

    def _groups(self) -> list[Group]:
        """Of each rule."""
        places: dict[Rule, list[int]] = {}
        for place, rule in enumerate(self.rules):
            places.setdefault(rule, []).append(place)
        return [(rule.chooser(self.rng.of(some)), some) for rule, some in places.items()]


def _back(groups: Sequence[Group], device: torch.device) -> Tensor:
    """(B,) int64: where each sequence of the batch stands among the groups laid end to end."""
    standing = [place for _, places in groups for place in places]
    return to_device(sorted(range(len(standing)), key=standing.__getitem__), device)


def _on(states: Tensor, places: Sequence[int]) -> Tensor:
    """`places` where `states` lie."""
    return to_device(places, states.device)
