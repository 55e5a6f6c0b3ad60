"""Attention of decoding calls to slots, for grouped queries: keys and values are read where they lie.

With an explicit mask transformers' sdpa copies K/V once for every query head of a group, in every layer of every step.
Here the queries that share a head of keys stand in one block of rows instead, so that each key is read once.

Letters: B batch, H heads of keys, G queries a head of keys, T rows, S slots, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "foresay_slots"
"""What transformers knows this attention as."""
BEYOND = ("softcap", "s_aux", "position_bias")
"""What an attention module may ask for beside a softmax of scaled products: such calls go to transformers' sdpa."""
FOLDED_ROWS = 512
"""Most rows of a block. A prompt has more, and its mask, once for each of the group, would take more than it saves."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What a layer attends to, (B, T, H * G, D), from `query` (B, H * G, T, D) and `key`, `value` (B, H, S, D).

    `attention_mask` (B, 1, T, S) bool, or None where every row sees every slot; with fewer slots it is for the last
    ones, and nobody sees the others. Calls that are no plain softmax, or whose queries are not grouped, go to
    transformers' sdpa.
    """
    if attention_mask is not None:
        first = key.shape[2] - attention_mask.shape[-1]
        key, value = key[:, :, first:], value[:, :, first:]
    groups = query.shape[1] // key.shape[1]
    softmax = all(more.get(name) is None for name in BEYOND)
    if groups > 1 and softmax and groups * query.shape[2] <= FOLDED_ROWS:
        return _fold(query, key, value, attention_mask, scaling), None
    if groups > 1 and softmax and query.device.type == "cpu":
        # On CUDA a mask and grouped queries together fall back to a slow kernel.
        seen = functional.scaled_dot_product_attention(
            query, key, value, attention_mask, scale=scaling, enable_gqa=True
        )
        return seen.transpose(1, 2).contiguous(), None
    own: tuple[Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
        module, query, key, value, attention_mask, scaling=scaling, **more
    )
    return own


AttentionInterface.register(NAME, attend)


def _fold(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """The G queries of a head of keys as rows of one block, G * T of them."""
    folded = _folded(query, key)
    if mask is not None:
        mask = FOLDED.of(mask, query, key)
    seen = functional.scaled_dot_product_attention(folded, key, value, mask, scale=scaling)
    return seen.reshape(*query.shape[:3], -1).transpose(1, 2).contiguous()


def _folded(query: Tensor, key: Tensor) -> Tensor:
    """(B, H, G * T, D)."""
    return query.reshape(len(query), key.shape[1], -1, query.shape[3])


def _repeated(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """(B, 1, G * T, S)."""
    return mask.repeat(1, 1, query.shape[1] // key.shape[1], 1)


class FoldedMasks:
    """The masks of the running call as its layers take them: many layers ask for one mask, one after the other."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Tensor, Tensor]] | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While a call runs; after it nothing is held. Of calls in two threads one may have to make its own again."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def of(self, mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """(B, 1, G * T, S), of what is added to the scores: 0, or -inf where `mask` (B, 1, T, S) hides a slot."""
        known, name = self._known, (id(mask), query.shape[1] // key.shape[1], query.dtype)
        if known is not None and name in known:
            return known[name][1]
        folded = query.new_zeros(()).where(_repeated(mask, query, key), -torch.inf)
        if known is not None:
            known[name] = mask, folded  # a mask that is held keeps its id to itself
        return folded


FOLDED = FoldedMasks()


def attend_in_parts(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, shared: int, scaling: float | None = None
) -> Tensor:
    """As `attend`, in two parts: slots before `shared`, which every row sees, without a mask, and the others with one.

    The parts are merged by their log-sum-exp, as in training's mask pass. Where no slot is seen by all rows (windows,
    a sequence that has just begun) there is one part. No decoding call takes this way: on a CPU it
    is nowhere faster (`benchmarks/attention.py`).
    """
    if not shared:
        return _fold(query, key, value, mask, scaling)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    folded, small = _folded(query, key), _repeated(mask[..., shared:], query, key)
    past, past_lse = _unmasked(folded, key[:, :, :shared], value[:, :, :shared], scale)
    scores = (folded @ key[:, :, shared:].transpose(-1, -2)).to(past_lse.dtype) * scale
    scores = scores.masked_fill(~small, -torch.inf)
    lse = torch.logaddexp(past_lse, scores.logsumexp(dim=-1))
    own = (scores - lse[..., None]).exp().to(value.dtype) @ value[:, :, shared:]
    seen = own + past * (past_lse - lse).exp()[..., None].to(past.dtype)
    return seen.reshape(*query.shape[:3], -1).transpose(1, 2).contiguous()


def _unmasked(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention to all of `key`, and the log-sum-exp of its scores, by the kernels behind torch's own attention."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)[:2]  # type: ignore[no-any-return]
    aten = torch.ops.aten
    if query.dtype in (torch.float16, torch.bfloat16):
        return aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)[:2]  # type: ignore[no-any-return]
    seen, lse, *_ = aten._scaled_dot_product_efficient_attention(query, key, value, None, True, scale=scale)
    return seen, lse[..., : query.shape[2]]
