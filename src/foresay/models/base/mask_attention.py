"""Attention of mask rows that reads the base's kept K/V where they lie, for the mask pass of training.

Through sdpa with an explicit mask, K/V are repeated for grouped queries and joined with the rows of the call, and both
copies wait for the backward pass: memory grows with the sequence in every layer. Here a mask row attends to the kept
rows and to its own block apart, and the two are merged by their log-sum-exp; scores over kept rows are made anew in the
backward pass, a few rows at a time.

Letters: B batch, H heads of keys, G queries a head of keys, T mask rows, A blocks of K masks, R kept rows, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from foresay.foundation.errors import UnsupportedBase
from foresay.models.base.cache import KeptCache

NAME = "foresay_kept_rows"
"""What transformers knows this attention as."""
SCORES_AT_ONCE = 2**22
"""Scores in memory at once, in float32: 16 MiB, and twice that in the backward pass."""
BEYOND = ("softcap", "s_aux", "position_bias")
"""What an attention module may ask for beside a softmax of scaled products."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What a layer attends to, (B, T, H * G, D), from `query` (B, H * G, T, D) and `key`, `value` (B, H, T, D).

    `attention_mask` is the reach (B, A, K, 2) of `MaskCall`; `more` holds the cache under the name `kept`.
    """
    beyond = [name for name in BEYOND if more.get(name) is not None]
    if beyond:
        raise UnsupportedBase(f"{type(module).__name__} asks for {beyond[0]}; load the base with attention 'eager'")
    cache: KeptCache = more["kept"]
    kept = cache.layers[module.layer_idx]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = _split(query, 1, (key.shape[1], -1)) * scale
    past, past_lse = _Past.apply(grouped, kept.keys, kept.values, attention_mask.flatten(1, 2))  # type: ignore[no-untyped-call]
    scores = _own_scores(grouped, key, attention_mask)
    lse = torch.logaddexp(past_lse, scores.logsumexp(-1).flatten(3, 4))
    blocks = attention_mask.shape[1:3]
    own = (scores - _split(lse, 3, blocks)[..., None]).exp().to(value.dtype)
    seen = (own @ _split(value, 2, blocks)[:, :, None]).flatten(3, 4)
    merged = seen + past * (past_lse - lse).exp()[..., None].to(past.dtype)
    return merged.flatten(1, 2).transpose(1, 2), None


AttentionInterface.register(NAME, attend)


def _own_scores(query: Tensor, key: Tensor, reach: Tensor) -> Tensor:
    """(B, H, G, A, K, K) float32: of every mask with the masks of its own block, -inf where it does not see them."""
    first, last = reach.unbind(-1)
    place = last + torch.arange(1, reach.shape[2] + 1, device=reach.device)
    seen = (first[..., None] <= place[..., None, :]) & (place[..., None, :] <= place[..., None])
    blocks = reach.shape[1:3]
    scores = _split(query, 3, blocks) @ _split(key, 2, blocks)[:, :, None].transpose(-1, -2)
    return scores.to(_exact(query)).masked_fill(~seen[:, None, None], -torch.inf)


def _split(states: Tensor, dim: int, sizes: tuple[int, ...] | torch.Size) -> Tensor:
    """One dimension as several."""
    return states.unflatten(dim, sizes)  # type: ignore[no-any-return, no-untyped-call]


class _Past(torch.autograd.Function):
    """Attention to the kept rows alone and the log-sum-exp of its scores; a gradient goes to the query only."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """`query` (B, H, G, T, D), scaled; `keys`, `values` (B, H, R, D); `reach` (B, T, 2)."""
        output = query.new_empty(*query.shape[:-1], values.shape[-1])
        lse = query.new_empty(query.shape[:-1], dtype=_exact(query))
        ctx.spans = _spans(query, keys, reach)
        for rows, seen in ctx.spans:
            scores = _scores(query[:, :, :, rows], keys[:, :, seen], reach[:, rows], seen)
            most = scores.amax(-1, keepdim=True)
            shares = scores.sub_(most).exp_()
            total = shares.sum(-1, keepdim=True)
            output[:, :, :, rows] = _product(shares, values[:, :, seen]) / total
            lse[:, :, :, rows] = (most + total.log())[..., 0]
        ctx.save_for_backward(query, keys, values, reach, output, lse)
        return output, lse

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_output: Tensor, d_lse: Tensor) -> tuple[Tensor, None, None, None]:
        """As FlashAttention does it (Dao et al. 2022, arXiv 2205.14135, appendix B), the log-sum-exp's own included."""
        query, keys, values, reach, output, lse = ctx.saved_tensors
        d_query = torch.empty_like(query)
        common = d_lse - (d_output * output).sum(-1, dtype=d_lse.dtype)
        for rows, seen in ctx.spans:
            scores = _scores(query[:, :, :, rows], keys[:, :, seen], reach[:, rows], seen)
            shares = scores.sub_(lse[:, :, :, rows, None]).exp_()
            d_scores = _product(d_output[:, :, :, rows], values[:, :, seen].transpose(-1, -2)).to(shares.dtype)
            d_scores.add_(common[:, :, :, rows, None]).mul_(shares)
            d_query[:, :, :, rows] = _product(d_scores, keys[:, :, seen])
        return d_query, None, None, None


def _spans(query: Tensor, keys: Tensor, reach: Tensor) -> list[tuple[slice, slice]]:
    """Mask rows in turns, so few that their scores stay small, each with the kept rows that any of them sees."""
    batch, heads, groups, rows, _ = query.shape
    size = max(SCORES_AT_ONCE // (batch * heads * groups * keys.shape[2]), 1)
    turns = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    first, last = reach[..., 0].amin(0).tolist(), reach[..., 1].amax(0).tolist()
    # After a window nothing may be visible; one row stands in, hidden.
    return [(turn, slice(min(*first[turn], max(last[turn])), max(last[turn]) + 1)) for turn in turns]


def _scores(query: Tensor, keys: Tensor, reach: Tensor, seen: slice) -> Tensor:
    """(B, H, G, T, S) of these rows with the kept rows `seen`, the least number where one is out of reach."""
    scores = _product(query, keys.transpose(-1, -2)).to(_exact(query))
    row = torch.arange(seen.start, seen.stop, device=reach.device)
    hidden = (row < reach[..., :1]) | (row > reach[..., 1:])
    return scores.masked_fill_(hidden[:, None, None], torch.finfo(scores.dtype).min)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """(B, H, G, T, N) times (B, H, N, M), which is not repeated for the G groups."""
    flat: Tensor = left.flatten(2, 3).to(right.dtype) @ right
    return _split(flat, 2, left.shape[2:4])


def _exact(states: Tensor) -> torch.dtype:
    """What scores are added up in."""
    return torch.promote_types(states.dtype, torch.float32)
