"""The sampler head: makes the guesses of a block coherent, each conditioned on the token before it (paper A, 3.2).

`p = softmax(W_u * sampler([E[previous] ; z]))`, with E the base's input embeddings and W_u its unembedding.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from foresay.models.weights import nan_weights, reset_linear


class Sampler(nn.Module):
    """(previous embedding, mask state) -> state to unembed."""

    def forward(self, previous: Tensor, state: Tensor) -> Tensor:
        """`previous` (..., E) embedding of the token before, `state` (..., D) of the mask row -> (..., D)."""
        raise NotImplementedError

    def reset(self, generator: torch.Generator) -> None:
        """Draw the starting weights."""
        raise NotImplementedError


class PaperSampler(Sampler):
    """Two blocks of Linear -> SiLU -> LayerNorm, E + D -> D -> D, no residual (paper A; widths from its Fig. 8)."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Linear(embedding + width, width), nn.LayerNorm(width)
        self.second, self.second_norm = nn.Linear(width, width), nn.LayerNorm(width)
        nan_weights(self)

    def forward(self, previous: Tensor, state: Tensor) -> Tensor:
        """See `Sampler.forward`."""
        hidden = self.first_norm(nn.functional.silu(self.first(torch.cat((previous, state), dim=-1))))
        return self.second_norm(nn.functional.silu(self.second(hidden)))  # type: ignore[no-any-return]

    def reset(self, generator: torch.Generator) -> None:
        """See `Sampler.reset`."""
        for linear in (self.first, self.second):
            reset_linear(linear, generator)
        for norm in (self.first_norm, self.second_norm):
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)


class ResidualSampler(Sampler):
    """`z + out(silu(LayerNorm(in([E ; z]))))` with `out` at zero: starts as the base head (ours, not the paper's)."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(embedding + width, 2 * width), nn.LayerNorm(2 * width)
        self.out = nn.Linear(2 * width, width)
        nan_weights(self)

    def forward(self, previous: Tensor, state: Tensor) -> Tensor:
        """See `Sampler.forward`."""
        hidden = self.norm(self.inner(torch.cat((previous, state), dim=-1)))
        return state + self.out(nn.functional.silu(hidden))  # type: ignore[no-any-return]

    def reset(self, generator: torch.Generator) -> None:
        """See `Sampler.reset`."""
        reset_linear(self.inner, generator)
        nn.init.ones_(self.norm.weight)
        for tensor in (self.norm.bias, self.out.weight, self.out.bias):
            nn.init.zeros_(tensor)


class NoSampler(Sampler):
    """The state as it is: each guess comes from the base head alone, and knows nothing of the guess before it."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()

    def forward(self, previous: Tensor, state: Tensor) -> Tensor:
        """See `Sampler.forward`."""
        return state

    def reset(self, generator: torch.Generator) -> None:
        """Nothing to draw."""


SAMPLERS: dict[str, type[PaperSampler] | type[ResidualSampler] | type[NoSampler]] = {
    "paper": PaperSampler,
    "residual": ResidualSampler,
    "none": NoSampler,
}


def build_sampler(kind: Literal["paper", "residual", "none"], embedding: int, width: int) -> Sampler:
    """A sampler for a base with input embeddings of width `embedding` and states of width `width`."""
    return SAMPLERS[kind](embedding, width)
