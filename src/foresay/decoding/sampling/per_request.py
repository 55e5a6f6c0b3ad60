"""Sequences with rules of their own in one batch: some greedy, some sampled, each as it would be alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from foresay.decoding.config import PenaltyConfig, SampleConfig
from foresay.decoding.sampling.chooser import Chooser, Drafts, Greedy, Sampled
from foresay.decoding.sampling.draft import Blocks, draft_allowed, draft_greedy
from foresay.decoding.sampling.grammar import Constraint, Grammar
from foresay.decoding.sampling.logits_processors import Processing, limiters, penalties, warpers
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, together
from foresay.models.base.transfer import to_device
from foresay.models.drafting import DraftingModel


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer must say, or must not."""

    grammar: Grammar | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit)."""
    min_tokens: int = 0
    """Stop tokens have no chance before so many tokens were said, unless the grammar has ended."""
    ignore_stop: bool = False
    """Stop tokens end nothing."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Rule:
    """How the tokens of a sequence are chosen, seed apart; sequences under equal rules are judged together."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    prompt: int = 0
    """Tokens that no penalty counts; 0 where there is none."""
    limits: Limits = NO_LIMITS
    """All but the grammar."""
    stops: frozenset[int] = frozenset()
    """Stop tokens, where they are kept back for a while."""
    constraint: Constraint | None = None
    """The grammar of one sequence alone."""

    @classmethod
    def of(
        cls,
        sample: SampleConfig,
        penalties: PenaltyConfig,
        prompt: int,
        limits: Limits = NO_LIMITS,
        stops: frozenset[int] = frozenset(),
    ) -> "Rule":
        """The rule for a prompt of so many tokens, without what makes no difference; `stops` end texts of the base."""
        sample = replace(sample, seed=0) if sample.temperature else SampleConfig()
        counts = penalties != PenaltyConfig() or limits.min_tokens
        constraint = None if limits.grammar is None else limits.grammar.constraint(prompt)
        kept = replace(limits, grammar=None, ignore_stop=False)
        held = stops if limits.min_tokens else frozenset()
        return cls(sample, penalties, prompt if counts else 0, kept, held, constraint)

    def chooser(self, rng: SeededNumbers) -> Chooser:
        """The chooser of sequences under this rule."""
        processing = _processing(replace(self, constraint=None))
        if self.constraint is not None:
            processing = replace(processing, processors=(self.constraint, *processing.processors))
        return Sampled(rng, processing, greedy_drafts=True) if self.sample.temperature else Greedy(processing)


@lru_cache(maxsize=256)
def _processing(rule: Rule) -> Processing:
    limits = limiters(rule.limits.logit_bias, rule.limits.min_tokens, rule.prompt, rule.stops)
    return Processing((*limits, *penalties(rule.penalties, rule.prompt), *warpers(rule.sample)))


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
        if any(rule.constraint is None for rule in self.rules):
            drafts = draft_greedy(model, blocks)
        else:
            deepest = blocks.tree.within(blocks.states.shape[1])
            drafts = blocks.newest.new_empty(len(self.rules), deepest.drafts)
        for place, rule in enumerate(self.rules):
            if rule.constraint is not None:
                drafts[place] = draft_allowed(model, blocks.of(place), rule.constraint)
        return Drafts(drafts)

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
