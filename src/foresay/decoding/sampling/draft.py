"""The next guesses: the sampler chain over the states of one block, or the best of its branches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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

    def of(self, place: int) -> "Blocks":
        """Of one sequence alone."""
        guesses = None if self.guesses is None else self.guesses[place, None]
        newest, texts = self.newest[place, None], self.texts[place : place + 1]
        return Blocks(self.states[place, None], newest, self.tree, guesses, texts=texts)


class Allows(Protocol):
    """What a grammar says of one answer (`Constraint`)."""

    prompt: int | None

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """(V,) bool: what may come after it."""


def draft_greedy(model: DraftingModel, blocks: Blocks) -> Tensor:
    """Guess the tokens after the newest ones: (B, N) int64 (paper A, Fig. 3).

    The N drafts of the tree at most K deep, in its order: after each token the sampler's best ones, given that token
    and the state of its depth. Soft-capping and scaling of logits keep their order, so the bare head is enough.
    """
    levels = blocks.tree.draw(blocks.newest.device).levels
    return _grow(model, blocks.states, blocks.newest, levels, blocks.guesses)


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


def draft_allowed(model: DraftingModel, blocks: Blocks, grammar: Allows) -> Tensor:
    """As `draft_greedy`, of one sequence, but of the tokens that its grammar allows after each draft: (N,) int64.

    The host reads each guess before the next: the grammar is asked there.
    """
    [text], device = blocks.texts, blocks.newest.device
    answers, drafts = [text[grammar.prompt :]], []
    shortlists = model.shortlist_of(blocks.states, blocks.guesses)
    for depth, level in enumerate(blocks.tree.draw(device).levels[: blocks.states.shape[1]]):
        answers = answers if level.parents is None else [answers[place] for place in level.parents.tolist()]
        masks = torch.stack([grammar.allowed(answer) for answer in answers]).to(device)
        shortlist = None if shortlists is None else shortlists[:, depth]
        if shortlist is not None and not masks[:, shortlist[0]].any(dim=1).all():
            shortlist = None
        previous = torch.tensor([[answer[-1] if answer else text[-1] for answer in answers]], device=device)
        states = blocks.states[:, depth, None].expand(-1, len(answers), -1)
        logits = model.guess(previous, states, depth, shortlist)[0]
        best = logits.masked_fill(~(masks if shortlist is None else masks[:, shortlist[0]]), -torch.inf)
        chosen = best.topk(level.width).indices
        chosen = (chosen if shortlist is None else shortlist[0][chosen]).flatten()
        places = range(len(answers)) if level.places is None else level.places.tolist()
        tokens = chosen.tolist()
        answers = [[*answers[place // level.width], tokens[place]] for place in places]
        drafts += [answer[-1] for answer in answers]
    return torch.tensor(drafts, device=device)
