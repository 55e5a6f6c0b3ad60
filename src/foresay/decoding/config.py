"""Settings of decoding: layouts, sampling, penalties, and the queue of requests."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from foresay.foundation.errors import require, require_at_least, require_kinds
from foresay.foundation.names import OWN_LAYOUTS


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """How requests share the model."""

    sequences: int = 16
    """Most answers that are generated at once; each has slots for `max_length` tokens."""
    waiting: int = 256
    """Most answers that wait for a place; those who come then are sent away."""
    max_length: int = 0
    """Most tokens of prompt and answer together; 0: what the base's context allows."""
    prefill_tokens: int = 2048
    """Most rows of a call that reads new prompts, padding included; one prompt may be longer."""
    prefix_cache: int = 512
    """MiB of K/V that is kept of prompts and answers for prompts that begin with the same tokens (a system prompt, a
    chat's earlier turns), which then read only what is new; 0 keeps none."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 1, "sequences", "prefill_tokens")
        require_at_least(self, 0, "waiting", "max_length", "prefix_cache")


SHORTLIST, LARGE_VOCABULARY = 64, 16_384
"""Tokens that drafts are taken from by default, in vocabularies of so many or more. 64 of 4,096 lost at most 2 % of the
tokens per step (docs/experiments/former.md)."""

MOST_NODES = 1024
"""Of a tree: a step of so many drafts has rows by the thousand, and those of ten times as many fill any memory."""

FixedLayout = Literal["plain", "linear", "quadratic", "tree"]
LayoutName = Literal[FixedLayout, "planned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    """How text is generated."""

    layout: LayoutName = "planned"
    """Where masks stand: nowhere (`plain`), after the last draft (`linear`) or every draft (`quadratic`); `tree` is
    quadratic with several drafts for a place; `planned` takes what pays most here, by steps measured once on this
    machine and by what is being accepted."""
    masks: int = 0
    """Masks in a block, at most the trained k; 0 takes the trained k (`planned`: the most it may take)."""
    branches: int = 3
    """Most drafts after one token (`tree`)."""
    nodes: int = 16
    """Most drafts in a step (`tree`); its call has at most (nodes + 1) x (masks + 1) rows."""
    shortlist: int | Literal["auto"] = "auto"
    """Draft from the so many tokens that the base head ranks first after each mask; 0 from all; `auto`: 64 where the
    vocabulary has 16,384 tokens or more, else all. The output stays."""
    prompt_lookup: bool = True
    """Let `planned` also verify what followed the same 2 to 4 tokens earlier in prompt and answer, where that earns its
    rows in this text. The output stays."""
    max_new_tokens: int = 512
    """Most tokens of an answer."""
    compile: bool = False
    """Run the base's decoder layers compiled (torch.compile) in decoding steps: up to a minute the first time, some
    seconds whenever a model is opened after that. On a CPU it needs a C++ compiler. The output stays."""
    graphs: bool = True
    """On CUDA, record each shape of a step as a CUDA graph when it first runs, and replay it; the output stays."""
    ignore_stop: bool = False
    """Generate past the stop token (benchmarks of fixed length)."""

    def __post_init__(self) -> None:
        require_kinds(self, layout=OWN_LAYOUTS)
        require(self.masks >= 0, f"masks is {self.masks}; give 1 or more, or 0 for the trained number")
        require_at_least(self, 1, "branches", "nodes")
        require(self.nodes <= MOST_NODES, f"nodes is {self.nodes}; give at most {MOST_NODES}")
        self._check_shortlist()
        require(self.max_new_tokens >= 1, f"max_new_tokens is {self.max_new_tokens}; give at least 1")

    def shortlist_size(self, vocabulary: int) -> int:
        """Tokens that a draft is taken from, out of `vocabulary`; 0: all.

        >>> DecodeConfig().shortlist_size(4_096), DecodeConfig().shortlist_size(49_152)
        (0, 64)
        """
        if self.shortlist == "auto":
            return max(SHORTLIST, self.branches) if vocabulary >= LARGE_VOCABULARY else 0
        return min(self.shortlist, vocabulary)

    def _check_shortlist(self) -> None:
        if self.shortlist == "auto":
            return
        number = isinstance(self.shortlist, int) and not isinstance(self.shortlist, bool) and self.shortlist >= 0
        require(number, f"shortlist is {self.shortlist!r}; give a number of tokens, 0 for all, or 'auto'")
        short = 0 < self.shortlist < self.branches
        require(not short, f"shortlist is {self.shortlist} for {self.branches} branches; give as many or more, or 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How tokens are chosen."""

    temperature: float = 0.0
    """Divides the logits before a token is drawn; 0 takes the best token, always."""
    top_k: int = 0
    """Draw from the k best tokens; 0 from all."""
    top_p: float = 1.0
    """Draw from the fewest tokens that hold this share of the chance."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the best token's chance."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 0, "temperature", "top_k", "min_p", "seed")
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}; give a share above 0, at most 1")
        require(self.min_p <= 1, f"min_p is {self.min_p}; give a share of at most 1")
        require(self.seed < 2**63, f"seed is {self.seed}; give a number from 0 to 2**63 - 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyConfig:
    """What makes a repeated token less likely."""

    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the answer has said."""
    frequency_penalty: float = 0.0
    """Taken off the logits of a token for each time that the answer has said it."""
    repetition_penalty: float = 1.0
    """Divides positive logits of tokens in the prompt or the answer, and multiplies negative ones."""

    def __post_init__(self) -> None:
        require_kinds(self)
        for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
            value = getattr(self, name)
            require(math.isfinite(value), f"{name} is {value}; give a finite number")
        require(self.repetition_penalty > 0, f"repetition_penalty is {self.repetition_penalty}; give a positive one")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputs:
    """What form an answer must have: one of these, under the names that vLLM gives them.

    >>> StructuredOutputs(choice=("yes", "no")).kind
    'choice'
    """

    json: dict[str, Any] | str | None = None
    """A JSON schema, or its text."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    """A regular expression that the whole answer matches (Rust's syntax)."""
    choice: tuple[str, ...] | None = None
    """One of these texts."""
    grammar: str | None = None
    """A grammar in the form of Lark or llama.cpp (GBNF)."""
    whitespace_pattern: str | None = None
    """Of JSON: what may stand between its parts, as a regular expression."""
    disable_any_whitespace: bool = False
    """Of JSON: nothing may stand between its parts."""

    def __post_init__(self) -> None:
        given = self._given
        require(len(given) == 1, f"{len(given)} of {', '.join(FORMS)} were given; give one")
        value, (kinds, cure) = getattr(self, given[0]), KINDS.get(given[0], (str, "a text"))
        require(isinstance(value, kinds), f"{given[0]} is {value!r}; give {cure}")
        texts = self.choice is None or (self.choice and all(isinstance(text, str) and text for text in self.choice))
        require(bool(texts), "choice holds no text, or something that is none; give one or more texts")

    @property
    def kind(self) -> str:
        """What was asked for, in words."""
        return FORMS[self._given[0]]

    @property
    def _given(self) -> list[str]:
        return [name for name in FORMS if getattr(self, name) not in (None, False)]


FORMS = {
    "json": "JSON schema",
    "json_object": "JSON object",
    "regex": "regular expression",
    "choice": "choice",
    "grammar": "grammar",
}
"""The forms of `StructuredOutputs`, in words."""
KINDS = {
    "json": (dict | str, "a dict, or its text"),
    "json_object": (bool, "True"),
    "choice": (tuple | list, "a tuple"),
}
"""What some of them are given as; the others are texts."""
