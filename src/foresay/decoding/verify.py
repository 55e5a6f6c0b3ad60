"""Which drafts stay: those the base itself would have said."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.decoding.dice import Dice


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the base says of the drafts of one call."""

    accepted: Tensor
    """(B,) int64: drafts that stay, counted from the first."""
    tokens: Tensor
    """(B, N + 1) int64: accepted drafts and the base's own token behind them, accepted + 1 of them from `first` on."""
    first: Tensor
    """(B,) int64: where a sequence's own choices begin (those with fewer than N drafts are aligned to the right)."""

    @property
    def newest(self) -> Tensor:
        """(B,) int64: the last kept token, the base's own after the accepted drafts."""
        return self.tokens.gather(1, (self.first + self.accepted)[:, None])[:, 0]


def verify_greedy(logits: Tensor, drafts: Tensor, drafted: Tensor) -> Verdict:
    """Keep the longest prefix of drafts that equals the base's argmax, and the base's own token behind it.

    `logits` (B, N + 1, V) at the row before every draft and at the last one; `drafts` (B, N) int64 and aligned to the
    right, `drafted` (B,) int64 of them real. A prefix, so a product: drafts behind a mismatch never count.
    """
    choices = logits.argmax(dim=-1)
    if not drafts.shape[1]:
        nothing = torch.zeros_like(choices[:, 0])
        return Verdict(nothing, choices, nothing)
    first = drafts.shape[1] - drafted
    missing = torch.arange(drafts.shape[1], device=drafts.device) < first[:, None]
    matches = (drafts == choices[:, :-1]) | missing
    accepted = matches.long().cumprod(dim=1).sum(dim=1) - first
    return Verdict(accepted, choices, first)


def verify_sampled(p: Tensor, drafts: Tensor, counts: Sequence[int], q: Tensor | None, dice: Dice) -> Verdict:
    """Chain rejection: draft d stays with chance min(1, p(d) / q(d)); else the residual max(0, p - q) is drawn from.

    After the last accepted draft the token comes from p itself, so that the output has exactly the distribution p
    (Leviathan et al. 2023, arXiv 2211.17192, appendix A). `p` (B, N + 1, V) at the row before every draft and at the
    last one; `drafts` (B, N) int64 and `q` (B, N, V), what they were drawn from (None: not by chance, so q is one at
    the draft), aligned to the right, `counts[b]` of them in use.
    """
    sequences, most = drafts.shape
    first = most - torch.tensor(counts, device=drafts.device)
    if q is None:
        q = torch.nn.functional.one_hot(drafts, p.shape[-1]).to(p.dtype)
    likely, guessed = (x.gather(2, drafts[:, :, None])[:, :, 0] for x in (p[:, :most], q))
    missing = torch.arange(most, device=drafts.device) < first[:, None]
    # A draft that could not be drawn (q = 0, in rows not in use) has no chance to speak of: 0 / 0 is never read.
    stays = dice.accept((likely / guessed).clamp(max=1).nan_to_num(0), counts) | missing
    accepted = stays.long().cumprod(dim=1).sum(dim=1) - first
    row = (first + accepted)[:, None, None].expand(-1, 1, p.shape[-1])
    wanted = p.gather(1, row)[:, 0]
    nothing = q.new_zeros(sequences, 1, q.shape[-1])
    residual = (wanted - torch.cat((q, nothing), dim=1).gather(1, row)[:, 0]).clamp(min=0)
    total = residual.sum(dim=-1, keepdim=True)
    # Where p equals q a rejection has chance zero; should rounding cause one, p is what is left to draw from.
    newest = dice.pick(torch.where(total > 0, residual / total, wanted))
    tokens = torch.cat((drafts, newest[:, None]), dim=1).scatter(1, row[:, :, 0], newest[:, None])
    return Verdict(accepted, tokens, first)
