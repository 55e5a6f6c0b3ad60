"""Attention of decoding calls to slots, for grouped queries: keys and values are read where they lie.

With an explicit mask transformers' sdpa copies K/V once for every query head of a group, in every layer of every step.
Here the queries that share a head of keys stand in one block of rows instead, so that each key is read once.

Letters: B batch, H heads of keys, G queries a head of keys, T rows, S slots, D width.
"""

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
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What a layer attends to, (B, T, H * G, D), from `query` (B, H * G, T, D) and `key`, `value` (B, H, S, D).

    `attention_mask` (B, 1, T, S) bool, or None where every row sees every slot. Calls that are no plain softmax, or
    whose queries are not grouped, go to transformers' sdpa.
    """
    groups = query.shape[1] // key.shape[1]
    plain = groups == 1 or dropout or any(more.get(name) is not None for name in BEYOND)
    if not plain and groups * query.shape[2] <= FOLDED_ROWS:
        return _fold(query, key, value, attention_mask, scaling), None
    if not plain and query.device.type == "cpu":
        # On CUDA a mask and grouped queries together fall back to a slow kernel.
        seen = functional.scaled_dot_product_attention(
            query, key, value, attention_mask, scale=scaling, enable_gqa=True
        )
        return seen.transpose(1, 2).contiguous(), None
    own: tuple[Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
    )
    return own


AttentionInterface.register(NAME, attend)


def _fold(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """The G queries of a head of keys as rows of one block, G * T of them."""
    batch, heads, rows, width = query.shape
    folded = query.reshape(batch, key.shape[1], -1, width)
    if mask is not None:
        mask = mask.repeat(1, 1, heads // key.shape[1], 1)
    seen = functional.scaled_dot_product_attention(folded, key, value, mask, scale=scaling)
    return seen.reshape(batch, heads, rows, -1).transpose(1, 2).contiguous()
