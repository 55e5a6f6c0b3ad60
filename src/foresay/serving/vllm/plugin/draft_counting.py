"""What vLLM counts as a draft: the masks after the drafts are none, so its own metrics say what they mean."""

from functools import cache, wraps
from pathlib import Path
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.core.sched.scheduler import Scheduler

from foresay.serving.vllm.manifest import PROPOSER, is_served, read

COUNTED = "foresay_counting"


def count_masks_apart() -> None:
    """Let vLLM's scheduler take masks for drafts that were never valid, where our proposer drafts.

    Then `vllm:spec_decode_num_draft_tokens` is drafts that were verified, and 1 + accepted / num_drafts is tokens per
    step after the prompt (as long as nothing is left undrafted).
    """
    if hasattr(Scheduler, COUNTED):
        return
    plain = Scheduler.update_from_output

    @wraps(plain)
    def update_from_output(self: Any, scheduled: Any, *rest: Any, **more: Any) -> Any:
        first = first_mask(self.vllm_config)
        if first is not None:
            invalid = dict(scheduled.num_invalid_spec_tokens or {})
            for request, drafts in scheduled.scheduled_spec_decode_tokens.items():
                invalid[request] = invalid.get(request, 0) + sum(token >= first for token in drafts)
            scheduled.num_invalid_spec_tokens = invalid
        return plain(self, scheduled, *rest, **more)

    Scheduler.update_from_output = update_from_output
    setattr(Scheduler, COUNTED, True)


def first_mask(config: VllmConfig) -> int | None:
    """Id of the first mask among vLLM's drafts, which all masks have or exceed; None where another proposer drafts."""
    speculative = config.speculative_config
    if speculative is None or speculative.model != PROPOSER:
        return None
    return _first_mask(config.model_config.model)


def drafts_are_ours(config: VllmConfig) -> bool:
    """Whether our proposer or our draft model drafts."""
    speculative = config.speculative_config
    if speculative is None:
        return False
    return speculative.model == PROPOSER or (speculative.method == "draft_model" and _is_ours(speculative.model))


@cache
def _is_ours(folder: str) -> bool:
    return is_served(Path(folder))


@cache
def _first_mask(folder: str) -> int:
    return read(Path(folder)).first_mask
