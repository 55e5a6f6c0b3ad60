"""Real decodes of held-out prompts while training, counted as `foresay bench` and `foresay check` count."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import PositionAcceptance, rates_of_domains, tally
from foresay.foundation.hashes import short_hash
from foresay.model import MultiTokenModel


@dataclass(frozen=True, slots=True)
class Measured:
    """What a decode of held-out prompts found."""

    step: int
    """Optimizer steps that made the adapter."""
    fingerprint: str
    """Hash of prompts and settings: only figures of the same decode may be compared."""
    prompts: int
    tokens_per_step: dict[str, float]
    """By domain."""
    acceptance: tuple[PositionAcceptance, ...]
    """Of each draft position, over all prompts."""

    @property
    def mean(self) -> float:
        """Tokens per step, mean of the domains: what `keep` compares."""
        return statistics.mean(self.tokens_per_step.values())

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by name, for a tracker."""
        rates = {f"tokens_per_step/{domain}": rate for domain, rate in self.tokens_per_step.items()}
        shares = {f"acceptance/{entry.position}": entry.unconditional for entry in self.acceptance}
        given = {f"acceptance_given_previous/{entry.position}": entry.conditional for entry in self.acceptance}
        # A domain may bear any name, "mean" too.
        return {**rates, "mean_tokens_per_step": self.mean, **shares, **given}

    @classmethod
    def read(cls, said: dict[str, Any]) -> "Measured":
        """From `asdict` through JSON, which keeps every digit."""
        return cls(**said | {"acceptance": tuple(PositionAcceptance(**entry) for entry in said["acceptance"])})


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Prompts kept out of training, and how they are decoded: quadratic, all masks, greedy."""

    prompts: tuple[Prompt, ...]
    max_new_tokens: int
    batch_size: int

    @property
    def config(self) -> DecodeConfig:
        """How they are decoded."""
        return DecodeConfig(layout="quadratic", max_new_tokens=self.max_new_tokens)

    @property
    def ids(self) -> list[tuple[int, ...]]:
        """Tokens of the prompts."""
        return [prompt.ids for prompt in self.prompts]

    @property
    def batches(self) -> list[list[tuple[int, ...]]]:
        """The same, as many together as are decoded together."""
        return [self.ids[start : start + self.batch_size] for start in range(0, len(self.prompts), self.batch_size)]

    @property
    def fingerprint(self) -> str:
        """Hash of what decides how much can be accepted."""
        return short_hash(f"{self.max_new_tokens} {[(prompt.domain, prompt.ids) for prompt in self.prompts]}")

    def check(self, model: MultiTokenModel) -> None:
        """Raise PromptError for prompts that cannot be served."""
        if self.prompts:
            model.check_prompts(self.ids, self.config)

    def measure(self, model: MultiTokenModel, step: int = 0, save_dtype: torch.dtype = torch.float32) -> Measured:
        """Decode as the adapter will once it is saved in `save_dtype` and opened; there must be prompts.

        Acceptance per position becomes the model's own.
        """
        with as_opened(model, save_dtype):
            said = [answer for some in self.batches for answer in model.decode(some, self.config)]
        rates = rates_of_domains([prompt.domain for prompt in self.prompts], said)
        found = Measured(step, self.fingerprint, len(said), rates, tally(said).acceptance)
        model.acceptance = shares_of(found)
        return found


def shares_of(found: Measured) -> tuple[float, ...]:
    """Acceptance of each draft position, as the artefact keeps it."""
    return tuple(round(entry.unconditional, 4) for entry in found.acceptance)


@contextmanager
def as_opened(model: MultiTokenModel, save_dtype: torch.dtype) -> Iterator[None]:
    """The adapter as it will be saved in `save_dtype` and opened again, as long as the block runs."""
    parameters = list(model.added.parameters())
    kept = [parameter.data for parameter in parameters]
    dtype = model.added_dtype
    try:
        for parameter in parameters:
            parameter.data = parameter.data.to(save_dtype).to(dtype)
        yield
    finally:
        for parameter, own in zip(parameters, kept):
            parameter.data = own


def heldout_prompts(examples: Sequence[Any]) -> tuple[Prompt, ...]:
    """Examples kept out of the data, as prompts."""
    return tuple(Prompt(example.prompt, example.domain or "heldout", "") for example in examples)
