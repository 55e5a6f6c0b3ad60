"""Which drafts stay: those the base itself would have said."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the base says of the drafts of one call."""

    accepted: Tensor
    """(B,) int64: drafts that stay, counted from the first."""
    tokens: Tensor
    """(B, N + 1) int64: the base's own choices; the kept tokens are those from `first` on, accepted + 1 of them."""
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
    first = drafts.shape[1] - drafted
    missing = torch.arange(drafts.shape[1], device=drafts.device) < first[:, None]
    matches = (drafts == choices[:, :-1]) | missing
    accepted = matches.long().cumprod(dim=1).sum(dim=1) - first
    return Verdict(accepted, choices, first)
