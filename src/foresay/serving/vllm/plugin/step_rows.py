"""Which rows of a vLLM step are masks, and how many drafts go before the next ones. Pure: arrays in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of one forward, request by request. A request's rows end with its drafts, and those with its masks."""

    scheduled: tuple[int, ...]
    """Rows of each request."""
    judged: tuple[int, ...]
    """Rows of each request that get logits: its drafts and the row before them."""
    masks: tuple[int, ...]
    """Masks at the end of each request's rows."""

    def gate(self) -> NDArray[np.bool_]:
        """(rows,) True at the masks."""
        is_mask = np.zeros(sum(self.scheduled), dtype=bool)
        for end, masks in zip(np.cumsum(self.scheduled), self.masks):
            is_mask[end - masks : end] = True
        return is_mask

    def judged_masks(self) -> NDArray[np.bool_]:
        """(judged rows,) True at the masks."""
        return replace(self, scheduled=self.judged).gate()

    def drafts(self, request: int) -> int:
        """Drafts of a request that are no masks."""
        return self.judged[request] - 1 - self.masks[request]

    def block(self, request: int, kept: int) -> range:
        """Judged rows of the masks after a request's last kept token; empty where a draft before them was wrong.

        `kept` tokens came out of the step: the accepted drafts and one more.
        """
        end = sum(self.judged[: request + 1])
        return range(end - self.masks[request], end) if kept == self.drafts(request) + 1 else range(end, end)


def best_length(chances: Sequence[float]) -> int:
    """How many drafts to put before the masks, from the chance of each to be right given those before it.

    A step with m drafts keeps 1 + S_m tokens, S_m the sum of the chances P_j that all up to j are right. Where not all
    m are, the masks stood after a wrong token, and a step that keeps 1 token must ask them again. Two such steps
    together make 1 + S_m / (2 - P_m) tokens a step in the long run, and that is made greatest.
    """
    reached = np.cumprod(chances)
    return int(np.argmax(np.cumsum(reached) / (2 - reached))) + 1
