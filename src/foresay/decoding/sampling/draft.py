"""The next guesses: the sampler chain over the states of one block, or the best of its branches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from foresay.models.drafting import DraftingModel
from foresay.models.layout.tree import Level, Tree


def draft_greedy(model: DraftingModel, states: Tensor, newest: Tensor, tree: Tree) -> Tensor:
    """Guess the tokens after `newest` (B,) int64 from mask states (B, K, D): (B, N) int64 (paper A, Fig. 3).

    The N drafts of `tree` at most K deep, in its order: after each token the sampler's best ones, given that token
    and the state of its depth. Soft-capping and scaling of logits keep their order, so the bare head is enough.
    """
    drafts: Tensor = model.compiled(_grow)(model, states, newest, tree.draw(newest.device).levels)
    return drafts


def _grow(model: DraftingModel, states: Tensor, newest: Tensor, levels: Sequence[Level]) -> Tensor:
    tokens = [newest[:, None]]
    shortlists = model.shortlist_of(states)
    for depth, level in enumerate(levels[: states.shape[1]]):
        previous = tokens[-1] if level.parents is None else tokens[-1][:, level.parents]
        shortlist = None if shortlists is None else shortlists[:, depth]
        logits = model.guess(previous, states[:, depth, None].expand(-1, previous.shape[1], -1), depth, shortlist)
        best = logits.topk(level.width).indices if level.width > 1 else logits.argmax(dim=-1, keepdim=True)
        drafts = best[:, :, 0] if level.places is None else best.flatten(1)[:, level.places]
        tokens.append(drafts if shortlist is None else shortlist.gather(1, drafts))
    return torch.cat(tokens, dim=1)[:, 1:]
