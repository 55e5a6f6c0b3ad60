"""A few rows of vLLM's unembedding: drafts of a block are taken from what the base ranks first at its masks.

So the unembedding is read once for a block, as in `DraftingModel.shortlist_of`, and not once more for each draft.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from foresay.decoding.config import DecodeConfig

PLAIN = (UnquantizedEmbeddingMethod, UnquantizedLinearMethod)


class Shortlist:
    """How many tokens drafts are taken from, and their logits."""

    def __init__(self, target: nn.Module, vocabulary: int) -> None:
        """`size` is 0, for all tokens, where the vocabulary is small or the rows of vLLM's head cannot be read."""
        self._head: Any = getattr(target, "lm_head", None)
        self._processor: Any = getattr(target, "logits_processor", None)
        self.size = DecodeConfig().shortlist_size(vocabulary) if self._is_readable(vocabulary) else 0

    def _is_readable(self, vocabulary: int) -> bool:
        """Whole on this rank, and neither quantised nor packed away."""
        head, processor = self._head, self._processor
        return (
            isinstance(getattr(head, "quant_method", None), PLAIN)
            and getattr(head, "tp_size", 0) == 1
            and getattr(head, "bias", None) is None
            and head.weight.ndim == 2
            and len(head.weight) >= vocabulary
            and processor is not None
            and getattr(processor, "head_dtype", None) in (None, head.weight.dtype)
        )

    def best(self, logits: Tensor) -> Tensor:
        """(N, V) -> (N, size) int64: the tokens with the greatest logits."""
        return logits.topk(self.size, dim=-1).indices

    def logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        """As vLLM would compute them, of `tokens` (B, C) after `states` (B, D) alone: (B, C)."""
        rows = functional.embedding(tokens, self._head.weight)
        logits = (rows @ states[:, :, None]).squeeze(-1)
        if self._processor.soft_cap is not None:
            logits = self._processor.soft_cap * (logits / self._processor.soft_cap).tanh()
        scaled: Tensor = logits * self._processor.scale
        return scaled
