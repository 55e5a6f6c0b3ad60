"""Drafts under a grammar: our masks pass vLLM's structured output, and tokens that must come are drafts."""

from functools import wraps
from itertools import takewhile
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.structured_output import StructuredOutputManager

from foresay.serving.vllm.plugin.draft_counting import drafts_are_ours, first_mask
from foresay.serving.vllm.plugin.forced_drafts import with_forced

PASSED = "foresay_masks"
PADDING = -1
"""vLLM's own id of a draft that is none: the grammar is not asked about it, nor about what stands after it."""


def change_drafts_under_grammars() -> None:
    """Let the grammar of a request judge its drafts alone, and add to them what it leaves no choice about.

    This is so where our proposer or our draft model drafts. Drafts that the grammar forbids are cut as before, and
    masks follow those that are left. What is said is chosen under the grammar at each draft and after the last one, so
    that answers stay those of vLLM without drafts.
    """
    if hasattr(StructuredOutputManager, PASSED):
        return
    validate, fill = StructuredOutputManager.validate_tokens, StructuredOutputManager.grammar_bitmask

    @wraps(validate)
    def validate_tokens(self: Any, request: Any, spec_tokens: list[int]) -> list[int]:
        first = first_mask(self.vllm_config)
        drafts = spec_tokens if first is None else list(takewhile(lambda token: token < first, spec_tokens))
        masks = spec_tokens[len(drafts) :]
        allowed = list(validate(self, request, drafts))
        if may_force(self.vllm_config) and has_begun(request):
            allowed = _longer(self, request, allowed, len(masks) or len(drafts))
        return [*allowed, *masks]

    @wraps(fill)
    def grammar_bitmask(self: Any, requests: Any, structured: list[str], scheduled: dict[str, list[int]]) -> Any:
        first = first_mask(self.vllm_config)
        if first is not None:
            scheduled = {
                name: [PADDING if token >= first else token for token in tokens] for name, tokens in scheduled.items()
            }
        return fill(self, requests, structured, scheduled)

    StructuredOutputManager.validate_tokens = validate_tokens
    StructuredOutputManager.grammar_bitmask = grammar_bitmask
    setattr(StructuredOutputManager, PASSED, True)


def may_force(config: VllmConfig) -> bool:
    """Whether drafts are ours and the scheduler has the last word on them.

    Scheduled asynchronously, the worker verifies its own. Drawn by chance, they come with the chances that they were
    drawn with, which other tokens would be judged by.
    """
    return (
        drafts_are_ours(config)
        and not config.scheduler_config.async_scheduling
        and config.speculative_config.draft_sample_method == "greedy"
    )


def has_begun(request: Any) -> bool:
    """Whether a grammar holds for all that the request says from here on: it has read a token."""
    return bool(request.use_structured_output and request.structured_output_request.reasoning_ended)


def _longer(manager: Any, request: Any, drafts: list[int], most: int) -> list[int]:
    """`drafts` and the tokens that must follow them, at most `most` in all."""
    bits = manager.backend.allocate_token_bitmask(1)
    grammar, spelled = request.structured_output_request.grammar, manager.tokenizer.convert_ids_to_tokens
    return with_forced(grammar, request.request_id, drafts, most, bits, spelled)
