"""Answers as a person wants them, and how their tokens are chosen."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.decoding.answer_html import answer_html
from foresay.decoding.config import DecodeConfig, PenaltyConfig, SampleConfig
from foresay.decoding.detokenizer import StepText, transcript
from foresay.decoding.metrics import tally
from foresay.decoding.sampling.chooser import Chooser, chooser_of
from foresay.decoding.sampling.per_request import NO_LIMITS, Limits, Mixed, Rule
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.steps import Generation
from foresay.foundation.errors import PromptError, require
from foresay.foundation.names import OWN_LAYOUTS


@dataclass(frozen=True, slots=True)
class Answer(Generation):
    """The answer to one prompt: its text, and how it came about."""

    text: str = ""
    """Without special tokens; empty where the model has no tokenizer."""
    prompt_tokens: int = 0
    step_texts: tuple[StepText, ...] = field(default=(), repr=False)
    """What each step added to the text; empty where the model has no tokenizer."""

    @classmethod
    def of(cls, said: Generation, tokenizer: PreTrainedTokenizerBase | None, prompt_tokens: int) -> "Answer":
        """What was generated after so many tokens of prompt, with its text."""
        text = "" if tokenizer is None else tokenizer.decode(said.tokens, skip_special_tokens=True)
        pieces = () if tokenizer is None else tuple(transcript(tokenizer, said.steps))
        return cls(said.steps, said.ended, text, prompt_tokens, pieces)

    @property
    def tokens_per_step(self) -> float:
        """Tokens of an average forward of the base, the prompt's own among them."""
        return tally([self]).tokens_per_step

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """What a notebook shows: tokens of one colour came out of one step."""
        count, steps = len(self.tokens), len(self.steps)
        return answer_html(self.step_texts, f"{count} tokens in {steps} steps: {self.tokens_per_step:.2f} a step")


class Choosing:
    """Makes the chooser of some of the prompts, by their indices, and afterwards says whether a grammar broke off."""

    def __init__(
        self, sample: SampleConfig, penalties: PenaltyConfig, prompts: Sequence[Sequence[int]], limits: Limits
    ) -> None:
        self._settings, self._limits = (sample, penalties), limits
        self._prompts = prompts
        self._rules: dict[int, Rule] = {}

    def __call__(self, indices: Sequence[int]) -> Chooser:
        """Of these prompts."""
        sample, penalties = self._settings
        if penalties == PenaltyConfig() and self._limits == NO_LIMITS:
            return chooser_of(sample)(indices)
        rules = [Rule.of(sample, penalties, len(self._prompts[index]), self._limits) for index in indices]
        self._rules |= zip(indices, rules)
        return Mixed(rules=rules, rng=SeededNumbers(sample.seed, indices))

    def check(self, said: Sequence[Generation]) -> None:
        """Raise PromptError where the grammar of an answer allowed no token."""
        for index, rule in self._rules.items():
            if rule.constraint is not None:
                rule.constraint.check(said[index].tokens)


def choosing(
    sample: SampleConfig, penalties: PenaltyConfig, prompts: Sequence[Sequence[int]], limits: Limits = NO_LIMITS
) -> Choosing:
    """Makes the chooser of some of `prompts` (token ids), by their indices."""
    return Choosing(sample, penalties, prompts, limits)


def with_changes(config: DecodeConfig | None, changes: dict[str, Any]) -> DecodeConfig:
    """`config` (the defaults when None) with some fields changed; an unknown one is a PromptError."""
    _check_known(changes, DecodeConfig)
    changed = replace(_given(config), **changes)
    check_drafting(changed, changes)
    return changed


def settings_of(
    config: DecodeConfig | None, changes: dict[str, Any]
) -> tuple[DecodeConfig, SampleConfig, PenaltyConfig]:
    """`config` with some fields changed, and those of sampling and penalties apart.

    Raises PromptError for an unknown one, ConfigError for one that cannot be, or means nothing without another.
    """
    _check_known(changes, DecodeConfig, SampleConfig, PenaltyConfig)
    decode, sample, penalties = (
        {name: value for name, value in changes.items() if name in kind.__dataclass_fields__}
        for kind in (DecodeConfig, SampleConfig, PenaltyConfig)
    )
    rules = SampleConfig(**sample)
    check_drawn(rules, changes)
    return with_changes(config, decode), rules, PenaltyConfig(**penalties)


def _given(config: DecodeConfig | None) -> DecodeConfig:
    """`config`, or the defaults. Raises ConfigError for what is neither."""
    kind = type(config).__name__
    require(
        config is None or isinstance(config, DecodeConfig),
        f"config is a {kind}; give a DecodeConfig, or its fields by name: answer(prompt, layout='linear')",
    )
    return config or DecodeConfig()


def check_drawn(sample: SampleConfig, given: Container[str]) -> None:
    """Raise ConfigError where settings of draws are `given` by name and, for want of a temperature, none is made."""
    idle = [name for name in ("top_k", "top_p", "min_p") if name in given]
    drawn = sample.temperature > 0 or "temperature" in given
    require(
        drawn or not idle,
        f"{', '.join(idle)} was given and temperature is 0, which takes the best token, always; give a temperature too",
    )


def check_drafting(config: DecodeConfig, given: Container[str]) -> None:
    """Raise ConfigError where settings of another layout than that of `config` are `given` by name."""
    idle = [name for name in ("branches", "nodes") if name in given and config.layout not in {"tree", *OWN_LAYOUTS}]
    require(
        not idle,
        f"{', '.join(idle)} was given and layout is {config.layout}, which has no tree of drafts; give layout tree, "
        "or leave it out",
    )
    lookup = "prompt_lookup" in given and config.prompt_lookup
    require(
        not lookup or config.layout == "planned",
        f"prompt_lookup was given and layout is {config.layout}; only planned looks up, so leave one of both out",
    )


def _check_known(changes: dict[str, Any], *kinds: type[DecodeConfig | SampleConfig | PenaltyConfig]) -> None:
    known = [name for kind in kinds for name in kind.__dataclass_fields__]
    unknown = sorted(changes.keys() - {*known})
    if unknown:
        raise PromptError(f"generate got unknown setting {unknown[0]!r}; known are {', '.join(known)}")
