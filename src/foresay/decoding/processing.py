"""Transformers' logits processors on many rows at once, each row as plain decoding at batch 1 would have shown it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.generation import logits_process as known

from foresay.errors import PromptError

BLIND = (
    known.TemperatureLogitsWarper,
    known.TopPLogitsWarper,
    known.TopKLogitsWarper,
    known.MinPLogitsWarper,
    known.TypicalLogitsWarper,
    known.EpsilonLogitsWarper,
    known.EtaLogitsWarper,
    known.InfNanRemoveLogitsProcessor,
    known.LogitNormalization,
    known.SuppressTokensLogitsProcessor,
)
"""Processors that never look at the ids: one call serves all rows."""
STATEFUL = (
    known.SynthIDTextWatermarkLogitsProcessor,
    known.UnbatchedClassifierFreeGuidanceLogitsProcessor,
    known.ClassifierFreeGuidanceLogitsProcessor,
)
"""Processors that remember earlier calls or need rows of other sequences: they cannot judge drafts side by side."""


@dataclass(frozen=True, slots=True)
class Processing:
    """A list of logits processors, each a pure function of (ids, scores).

    Raises PromptError for the known stateful ones.
    """

    processors: tuple[known.LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        for processor in self.processors:
            if isinstance(processor, STATEFUL):
                raise PromptError(
                    f"{type(processor).__name__} keeps a state between calls, so drafts cannot be verified with it; "
                    "leave it out, or decode with transformers' own generate"
                )

    @property
    def blind(self) -> bool:
        """No processor looks at the ids."""
        return all(isinstance(processor, BLIND) for processor in self.processors)

    def rows(self, texts: Sequence[Sequence[list[int]]], logits: Tensor) -> Tensor:
        """Scores (B, N, V), float32 or wider, of `logits` (B, N, V); `texts[b][n]` are the ids before row n.

        Where `texts[b]` has fewer than N entries they belong to the last rows, and the first are left as they are:
        nobody reads those. Raises PromptError when a processor gives NaN.
        """
        scores = logits if logits.dtype == torch.float64 else logits.float()
        for processor in self.processors:
            if isinstance(processor, BLIND):
                flat = scores.flatten(0, 1)
                scores = processor(flat.new_zeros(len(flat), 1, dtype=torch.int64), flat).view_as(logits)
            else:
                scores = _one_by_one(processor, texts, scores)
            if scores.isnan().any():
                raise PromptError(f"{type(processor).__name__} gave NaN scores; mend or leave out that processor")
        return scores


def _one_by_one(processor: known.LogitsProcessor, texts: Sequence[Sequence[list[int]]], scores: Tensor) -> Tensor:
    scores = scores.clone()
    for sequence, prefixes in enumerate(texts):
        for back, ids in enumerate(reversed(prefixes), 1):
            row = scores[sequence, -back][None].clone()
            scores[sequence, -back] = processor(torch.tensor([ids], device=row.device), row)[0]
    return scores
