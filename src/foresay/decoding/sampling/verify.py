"""Which drafts stay: those the base itself would have said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foresay.decoding.sampling.randomness import RandomNumbers
from foresay.models.base.transfer import to_device
from foresay.models.layout.tree import Tree


@dataclass(frozen=True, slots=True)
class DraftsToVerify:
    """The drafts of a call, and the ids of each sequence up to its newest token."""

    tokens: Tensor
    """(B, N + 1) int64: newest token and drafts, aligned to the right where some have fewer; siblings differ."""
    counts: tuple[int, ...]
    """Drafts of each sequence; empty where the host does not know them."""
    tree: Tree
    """How they are linked; a chain where counts differ."""
    q: Tensor | None
    """(B, N, V): what they were drawn from, aligned alike; None: they were not drawn by chance."""
    texts: Sequence[list[int]]
    """Ids of each sequence, its newest token included."""
    placed: Tensor | None = None
    """(B,) int64: `counts` on the device, where they are there already."""

    @property
    def drafts(self) -> Tensor:
        """(B,) int64: drafts of each sequence."""
        return to_device(self.counts, self.tokens.device) if self.placed is None else self.placed

    @property
    def roots(self) -> Tensor:
        """(B,) int64: row of each sequence's newest token."""
        return self.tokens.shape[1] - 1 - self.drafts

    @property
    def depths(self) -> Tensor:
        """(B, N + 1) int64: how many drafts lead to each row; below 0 for rows in front of a newest token."""
        return self.tree.draw(self.tokens.device).depths - self.roots[:, None]

    @property
    def complete(self) -> bool:
        """Every row is in use, and the host knows it."""
        return bool(self.counts) and min(self.counts) == self.tokens.shape[1] - 1

    def of(self, sequences: Sequence[int]) -> "DraftsToVerify":
        """Of these sequences alone."""
        chosen = to_device(sequences, self.tokens.device)
        counts = tuple(self.counts[place] for place in sequences)
        q, placed = (None if some is None else some[chosen] for some in (self.q, self.placed))
        return DraftsToVerify(
            self.tokens[chosen], counts, self.tree, q, [self.texts[place] for place in sequences], placed
        )

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
class Verification:
    """What the base says of the drafts of one call."""

    accepted: Tensor
    """(B,) int64: drafts that stay."""
    path: Tensor
    """(B, depth + 1) int64: judged rows that stay, from the newest token on; accepted + 1 of them, the rest unread."""
    tokens: Tensor
    """(B, depth + 1) int64: the base's token after each of them: the accepted drafts and one more."""
    used: Tensor | None = None
    """(B,) int64: random numbers that the decisions took; None: none."""
    faulty: Tensor | None = None
    """(B,) bool: the scores are no numbers, or leave no token; None: nobody looked."""

    def select(self, sequences: Tensor) -> "Verification":
        """Of these sequences, (B',) int64, in this order."""
        used, faulty = (None if some is None else some[sequences] for some in (self.used, self.faulty))
        return Verification(self.accepted[sequences], self.path[sequences], self.tokens[sequences], used, faulty)

    def report(self) -> Tensor:
        """(B, depth + 5) int64, all that the host reads of it: accepted, last, used, faulty, then `tokens`."""
        nothing = torch.zeros_like(self.accepted)
        flags = (nothing if some is None else some.long() for some in (self.used, self.faulty))
        return torch.cat((torch.stack((self.accepted, self.last, *flags), dim=1), self.tokens), dim=1)

    @property
    def last(self) -> Tensor:
        """(B,) int64: the last row that stays."""
        return self.path.gather(1, self.accepted[:, None])[:, 0]

    @property
    def newest(self) -> Tensor:
        """(B,) int64: the last kept token, the base's own after the accepted drafts."""
        return self.tokens.gather(1, self.accepted[:, None])[:, 0]


def together(verdicts: Sequence[Verification]) -> Verification:
    """Verdicts on parts of a batch as one, in this order."""

    def flags(verdict: Verification) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros_like(verdict.accepted)
        return (
            nothing if verdict.used is None else verdict.used,
            nothing.bool() if verdict.faulty is None else verdict.faulty,
        )

    parts = zip(*((some.accepted, some.path, some.tokens, *flags(some)) for some in verdicts))
    return Verification(*(torch.cat(some) for some in parts))


def follow(choices: Tensor, asked: DraftsToVerify) -> Verification:
    """Go from the newest token to the draft that the base chose there, and on, while there is one.

    `choices` (B, N + 1) int64: the base's token after each row. A draft stays when nothing on its way to the root is
    wrong: drafts after a mismatch never count.
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
    return Verification(kept.sum(dim=1) - 1, path, choices.gather(1, path))


def _prefix(stays: Tensor, choices: Tensor, asked: DraftsToVerify) -> Verification:
    """Of a chain, the drafts up to the first that does not stay: `stays` (B, N) bool, `choices` (B, N + 1) int64."""
    most = stays.shape[1]
    rows = torch.arange(most + 1, device=stays.device)
    if asked.complete:
        accepted = stays.long().cumprod(dim=1).sum(dim=1) if most else rows.new_zeros(len(stays))
        return Verification(accepted, rows.expand_as(choices), choices)
    first = asked.roots[:, None]
    accepted = (stays | (rows[:-1] < first)).long().cumprod(dim=1).sum(dim=1) - first[:, 0]
    path = (first + rows).clamp(max=most)
    return Verification(accepted, path, choices.gather(1, path))


def verify_greedy(logits: Tensor, asked: DraftsToVerify) -> Verification:
    """Keep what the base's argmax keeps: `logits` (B, N + 1, V) at each judged row."""
    return follow(logits.argmax(dim=-1), asked)


def verify_drawn(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
    """Keep what a draw from `p` (B, N + 1, V) keeps, for drafts that were not drawn by chance.

    Every token is drawn from p itself by the next number, as in plain decoding: a seed gives the same text.
    """
    parents = asked.tree.draw(p.device).parents
    verdict = follow(rng.walk(p, asked.tokens, parents, asked.depths), asked)
    return replace(verdict, used=verdict.accepted + 1)


def verify_sampled(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
    """Chain rejection: draft d stays with chance min(1, p(d) / q(d)); else the residual max(0, p - q) is drawn from.

    After the last accepted draft the token comes from p itself, so that the output has exactly the distribution p
    (Leviathan et al. 2023, arXiv 2211.17192, appendix A). `p` (B, N + 1, V) at each judged row; the drafts are a chain.
    """
    assert asked.q is not None, "drafts that were drawn come with what they were drawn from"
    drafts, q = asked.tokens[:, 1:], asked.q
    likely, guessed = (x.gather(2, drafts[:, :, None])[:, :, 0] for x in (p[:, :-1], q))
    # A draft that could not be drawn (q = 0, in rows not in use) has no chance to speak of: 0 / 0 is never read.
    stays = rng.accept((likely / guessed).clamp(max=1).nan_to_num(0), asked.depths[:, 1:] - 1)
    kept = _prefix(stays, asked.tokens, asked)
    row = kept.last[:, None]
    wide = row[:, :, None].expand(-1, -1, p.shape[-1])
    wanted = p.gather(1, wide)[:, 0]
    residual = (wanted - torch.cat((q, torch.zeros_like(p[:, :1])), dim=1).gather(1, wide)[:, 0]).clamp(min=0)
    total = residual.sum(dim=-1, keepdim=True)
    # Where p equals q a rejection has chance zero; should rounding cause one, p is what is left to draw from.
    drawn = torch.where(total > 0, residual / total, wanted)
    newest = rng.pick(drawn[:, None], asked.drafts[:, None])[:, 0]
    said = torch.cat((drafts, newest[:, None]), dim=1).scatter(1, row, newest[:, None])
    return Verification(kept.accepted, kept.path, said.gather(1, kept.path), asked.drafts + 1)
