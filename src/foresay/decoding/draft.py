"""The next guesses: the sampler chain over the states of one block, or the best of its branches."""

import torch
from torch import Tensor

from foresay.modelling.model import MaskModel
from foresay.tree import Tree


def draft_greedy(model: MaskModel, states: Tensor, newest: Tensor, tree: Tree) -> Tensor:
    """Guess the tokens behind `newest` (B,) int64 from mask states (B, K, D): (B, N) int64 (paper A, Fig. 3).

    The N drafts of `tree` at most K deep, in its order: behind each token the sampler's best ones, given that token
    and the state of its depth. Soft-capping and scaling of logits keep their order, so the bare head is enough.
    """
    drafts: Tensor = model.compiled(_grow)(model, states, newest, tree)
    return drafts


def _grow(model: MaskModel, states: Tensor, newest: Tensor, tree: Tree) -> Tensor:
    tokens = [newest[:, None]]
    for state, level in zip(states.unbind(dim=1), tree.draw(newest.device).levels):
        previous = tokens[-1] if level.parents is None else tokens[-1][:, level.parents]
        logits = model.base.head(model.sample(previous, state[:, None].expand(-1, previous.shape[1], -1)))
        best = logits.topk(level.width).indices if level.width > 1 else logits.argmax(dim=-1, keepdim=True)
        tokens.append(best[:, :, 0] if level.places is None else best.flatten(1)[:, level.places])
    return torch.cat(tokens, dim=1)[:, 1:]
