"""The next guesses: the sampler chain over the states of one block, or the best of its branches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.models.drafting import DraftingModel
from foresay.models.layout.tree import Level, Tree


@dataclass(frozen=True, slots=True)
class Blocks:
    """The block after each sequence's last accepted row."""

    states: Tensor
    """(B, K, D) of its masks."""
    newest: Tensor
    """(B,) int64: the token that the guesses go after."""
    tree: Tree
    """How the drafts are to be linked."""
    guesses: Tensor | None = None
    """(B, K, V): the base's logits of `states`, where the call gave them (`Rows.guesses`)."""
    used: Tensor | None = None
    """(B,) int64: random numbers that the step used before; None: none."""
    sizes: Sequence[int] = ()
    """Masks in each sequence's block; 0 where it has none."""
    texts: Sequence[list[int]] = ()
    """Ids of each sequence, its newest token included."""


def draft_greedy(model: DraftingModel, blocks: Blocks) -> Tensor:
    """Guess the tokens after the newest ones: (B, N) int64 (paper A, Fig. 3).

    The N drafts of the tree at most K deep, in its order: after each token the sampler's best ones, given that token
    and the state of its depth. Soft-capping and scaling of logits keep their order, so the bare head is enough.
    """
    levels = blocks.tree.draw(blocks.newest.device).levels
    drafts: Tensor = model.compiled(_grow)(model, blocks.states, blocks.newest, levels, blocks.guesses)
    return drafts


def _grow(
    model: DraftingModel, states: Tensor, newest: Tensor, levels: Sequence[Level], guesses: Tensor | None
) -> Tensor:
    tokens = [newest[:, None]]
    shortlists = model.shortlist_of(states, guesses)
    for depth, level in enumerate(levels[: states.shape[1]]):
        previous = tokens[-1] if level.parents is None else tokens[-1][:, level.parents]
        shortlist = None if shortlists is None else shortlists[:, depth]
        logits = model.guess(previous, states[:, depth, None].expand(-1, previous.shape[1], -1), depth, shortlist)
        best = logits.topk(level.width).indices if level.width > 1 else logits.argmax(dim=-1, keepdim=True)
        drafts = best[:, :, 0] if level.places is None else best.flatten(1)[:, level.places]
        tokens.append(drafts if shortlist is None else shortlist.gather(1, drafts))
    return torch.cat(tokens, dim=1)[:, 1:]
