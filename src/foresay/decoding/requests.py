"""What may be asked of an engine, and what each step of it gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from foresay.decoding.config import PenaltyConfig, SampleConfig
from foresay.decoding.sampling.per_request import NO_LIMITS, Limits
from foresay.decoding.steps import Step

Ended = Literal["stop", "length", "error"]
"""`error`: its grammar allows no token that the model has."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that somebody wants."""

    prompt: tuple[int, ...]
    max_tokens: int
    sample: SampleConfig = field(default_factory=SampleConfig)
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    limits: Limits = NO_LIMITS
    stop: Callable[[int], bool] | None = None
    """Told of every token that is kept; true ends the answer with that token. Stop tokens end it unasked."""
    logits: bool = False
    """Hand out the base's logits of each token."""
    reads: Callable[[Tensor], None] | None = None
    """Told of the base's logits (N, V) of the prompt's tokens but the first, float32, some rows at a time."""


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """What a step gave one request."""

    ticket: int
    step: Step
    ended: Ended | None = None
    logits: tuple[Tensor, ...] = ()
    """(V,) float32 for each token of the step, before penalties and warpers, where the request asked."""
    failure: str = ""
    """What went wrong, of one that ended in an error."""
    cached_tokens: int = 0
    """Of a request's first step: tokens of its prompt that were not read again, for their K/V was kept."""
