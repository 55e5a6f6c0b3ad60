"""The next guesses: the sampler chain over the states of one block."""

import torch
from torch import Tensor

from foresay.modelling.model import MaskModel


def draft_greedy(model: MaskModel, states: Tensor, newest: Tensor) -> Tensor:
    """Guess the tokens behind `newest` (B,) int64 from mask states (B, K, D): (B, K) int64 (paper A, Fig. 3).

    Each guess is the sampler's argmax given the guess before it. Soft-capping and scaling of logits keep their order,
    so the bare head is enough.
    """
    drafts: Tensor = model.compiled(_chain)(model, states, newest)
    return drafts


def _chain(model: MaskModel, states: Tensor, newest: Tensor) -> Tensor:
    guesses, previous = [], newest
    for state in states.unbind(dim=1):
        previous = model.base.head(model.sample(previous, state)).argmax(dim=-1)
        guesses.append(previous)
    return torch.stack(guesses, dim=1)
