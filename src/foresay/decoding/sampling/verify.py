"""Which drafts stay: those the base itself would have said."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.decoding.sampling.randomness import Dice
from foresay.models.layout.tree import Tree


@dataclass(frozen=True, slots=True)
class Asked:
    """The drafts of a call, and the ids of each sequence up to its newest token."""

    tokens: Tensor
    """(B, N + 1) int64: newest token and drafts, aligned to the right where some have fewer; siblings differ."""
    counts: tuple[int, ...]
    """Drafts of each sequence."""
    tree: Tree
    """How they hang together; a chain where counts differ."""
    q: Tensor | None
    """(B, N, V): what they were drawn from, aligned alike; None: they were not drawn by chance."""
    texts: Sequence[list[int]]
    """Ids of each sequence, its newest token included."""

    @property
    def roots(self) -> Tensor:
        """(B,) int64: row of each sequence's newest token."""
        most = self.tokens.shape[1] - 1
        return torch.tensor([most - count for count in self.counts], device=self.tokens.device)

    def of(self, sequences: Sequence[int]) -> "Asked":
        """Of these sequences alone."""
        chosen = torch.tensor(sequences, device=self.tokens.device)
        counts = tuple(self.counts[place] for place in sequences)
        q = None if self.q is None else self.q[chosen]
        return Asked(self.tokens[chosen], counts, self.tree, q, [self.texts[place] for place in sequences])

    def prefixes(self) -> list[list[list[int]]]:
        """Ids before each row to be judged: the text, and with the drafts on the way to the row."""
        prefixes = []
        for text, tokens, count in zip(self.texts, self.tokens.tolist(), self.counts):
            rows = [text]
            for token, parent in zip(tokens[len(tokens) - count :], self.tree.parents):
                rows.append([*rows[parent], token])
            prefixes.append(rows)
        return prefixes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the base says of the drafts of one call."""

    accepted: Tensor
    """(B,) int64: drafts that stay."""
    path: Tensor
    """(B, depth + 1) int64: judged rows that stay, from the newest token on; accepted + 1 of them, the rest unread."""
    tokens: Tensor
    """(B, depth + 1) int64: the base's token behind each of them: the accepted drafts and one more."""

    def select(self, sequences: Tensor) -> "Verdict":
        """Of these sequences, (B',) int64, in this order."""
        return Verdict(self.accepted[sequences], self.path[sequences], self.tokens[sequences])

    @property
    def last(self) -> Tensor:
        """(B,) int64: the last row that stays."""
        return self.path.gather(1, self.accepted[:, None])[:, 0]

    @property
    def newest(self) -> Tensor:
        """(B,) int64: the last kept token, the base's own after the accepted drafts."""
        return self.tokens.gather(1, self.accepted[:, None])[:, 0]


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Verdicts on parts of a batch as one, in this order."""
    parts = zip(*((some.accepted, some.path, some.tokens) for some in verdicts))
    return Verdict(*(torch.cat(some) for some in parts))


def follow(choices: Tensor, asked: Asked) -> Verdict:
    """Go from the newest token to the draft that the base chose there, and on, while there is one.

    `choices` (B, N + 1) int64: the base's token behind each row. A draft stays when nothing on its way to the root is
    wrong: drafts behind a mismatch never count.
    """
    if asked.tree.is_chain:
        return _prefix(asked.tokens[:, 1:] == choices[:, :-1], choices, asked)
    branches, roots = asked.tree.draw(choices.device), asked.roots[:, None]
    rows = torch.arange(choices.shape[1], device=choices.device)
    wrong = (asked.tokens != choices[:, branches.parents]) & (rows > roots)
    stays = ~(branches.ways & wrong[:, None]).any(dim=2)
    # Breadth-first order: of the rows that stay the last one is the deepest, and the others are on its way.
    last = torch.where(stays, rows, 0).amax(dim=1)
    kept = branches.ways[last] & (rows >= roots)
    path = torch.where(kept, rows, rows[-1]).sort(dim=1).values[:, : asked.tree.depths[-1] + 1]
    return Verdict(kept.sum(dim=1) - 1, path, choices.gather(1, path))


def _prefix(stays: Tensor, choices: Tensor, asked: Asked) -> Verdict:
    """Of a chain, the drafts up to the first that does not stay: `stays` (B, N) bool, `choices` (B, N + 1) int64."""
    most = stays.shape[1]
    rows = torch.arange(most + 1, device=stays.device)
    if min(asked.counts) == most:
        accepted = stays.long().cumprod(dim=1).sum(dim=1) if most else rows.new_zeros(len(stays))
        return Verdict(accepted, rows.expand_as(choices), choices)
    first = asked.roots[:, None]
    accepted = (stays | (rows[:-1] < first)).long().cumprod(dim=1).sum(dim=1) - first[:, 0]
    path = (first + rows).clamp(max=most)
    return Verdict(accepted, path, choices.gather(1, path))


def verify_greedy(logits: Tensor, asked: Asked) -> Verdict:
    """Keep what the base's argmax keeps: `logits` (B, N + 1, V) at each judged row."""
    return follow(logits.argmax(dim=-1), asked)


def verify_drawn(p: Tensor, asked: Asked, dice: Dice) -> Verdict:
    """Keep what a draw from `p` (B, N + 1, V) keeps, for drafts that were not drawn by chance.

    Every token is drawn from p itself, one draw each, as in plain decoding: a seed gives the same text.
    """
    parents, row = asked.tree.draw(p.device).parents, asked.roots
    sequence = torch.arange(len(p), device=p.device)
    rows = torch.arange(p.shape[1], device=p.device)
    choices = torch.full_like(asked.tokens, -1)
    going = torch.ones_like(row, dtype=torch.bool)
    while any(wanted := going.tolist()):
        chosen = dice.pick(p[sequence, row], wanted)
        choices[sequence, row] = torch.where(going, chosen, choices[sequence, row])
        behind = (parents == row[:, None]) & (rows > row[:, None]) & (asked.tokens == chosen[:, None])
        going = going & behind.any(dim=1)
        row = torch.where(going, behind.long().argmax(dim=1), row)
    return follow(choices, asked)


def verify_sampled(p: Tensor, asked: Asked, dice: Dice) -> Verdict:
    """Chain rejection: draft d stays with chance min(1, p(d) / q(d)); else the residual max(0, p - q) is drawn from.

    After the last accepted draft the token comes from p itself, so that the output has exactly the distribution p
    (Leviathan et al. 2023, arXiv 2211.17192, appendix A). `p` (B, N + 1, V) at each judged row; the drafts are a chain.
    """
    assert asked.q is not None, "drafts that were drawn come with what they were drawn from"
    drafts, q = asked.tokens[:, 1:], asked.q
    likely, guessed = (x.gather(2, drafts[:, :, None])[:, :, 0] for x in (p[:, :-1], q))
    # A draft that could not be drawn (q = 0, in rows not in use) has no chance to speak of: 0 / 0 is never read.
    stays = dice.accept((likely / guessed).clamp(max=1).nan_to_num(0), asked.counts)
    kept = _prefix(stays, asked.tokens, asked)
    row = kept.last[:, None]
    wide = row[:, :, None].expand(-1, -1, p.shape[-1])
    wanted = p.gather(1, wide)[:, 0]
    residual = (wanted - torch.cat((q, torch.zeros_like(p[:, :1])), dim=1).gather(1, wide)[:, 0]).clamp(min=0)
    total = residual.sum(dim=-1, keepdim=True)
    # Where p equals q a rejection has chance zero; should rounding cause one, p is what is left to draw from.
    newest = dice.pick(torch.where(total > 0, residual / total, wanted))
    said = torch.cat((drafts, newest[:, None]), dim=1).scatter(1, row, newest[:, None])
    return Verdict(kept.accepted, kept.path, said.gather(1, kept.path))
