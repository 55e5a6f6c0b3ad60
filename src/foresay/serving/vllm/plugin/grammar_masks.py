"""Drafts under a grammar: our masks are let past vLLM's structured output, which would cut them off as wrong words."""

from functools import wraps
from itertools import takewhile
from typing import Any

from vllm.v1.structured_output import StructuredOutputManager

from foresay.serving.vllm.plugin.draft_counting import first_mask

PASSED = "foresay_masks"
PADDING = -1
"""vLLM's own id of a draft that is none: the grammar is not asked about it, nor about what stands after it."""


def let_masks_pass() -> None:
    """Let the grammar of a request judge its drafts alone, where our proposer drafts.

    Drafts that it forbids are cut as before, and the masks follow those that are left. What is said is chosen under the
    grammar at each draft and after the last one, so that answers stay those of vLLM without drafts.
    """
    if hasattr(StructuredOutputManager, PASSED):
        return
    validate, fill = StructuredOutputManager.validate_tokens, StructuredOutputManager.grammar_bitmask

    @wraps(validate)
    def validate_tokens(self: Any, request: Any, spec_tokens: list[int]) -> list[int]:
        first = first_mask(self.vllm_config)
        if first is None:
            return list(validate(self, request, spec_tokens))
        drafts = list(takewhile(lambda token: token < first, spec_tokens))
        return [*validate(self, request, drafts), *spec_tokens[len(drafts) :]]

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
