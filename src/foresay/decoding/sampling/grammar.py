"""What an answer may be, by llguidance: a JSON schema, a regular expression, a choice or a grammar.

A grammar says after each text which tokens may follow. Its mask is a logits processor, so drafts are verified under it
at each place, and what comes out is plain decoding under the same masks: greedy to the token, sampled in distribution.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation import LogitsProcessor

from foresay.decoding.config import StructuredOutputs
from foresay.foundation.errors import MissingPackage, PromptError, first_line

LONGEST_LEFT = 60
"""Characters of a cause that a refusal repeats."""


@dataclass(frozen=True, eq=False)
class Grammar:
    """A grammar that was read for one tokenizer; every answer under it has a `Constraint` of its own."""

    text: str
    """As llguidance takes it."""
    tokens: Any
    """llguidance's tokenizer."""
    stops: frozenset[int]
    """The base's stop tokens, which end an answer where the grammar may end."""
    vocabulary: int

    @classmethod
    def of(
        cls, wanted: StructuredOutputs, tokenizer: PreTrainedTokenizerBase, vocabulary: int, stops: Sequence[int]
    ) -> "Grammar":
        """Read what is `wanted`, for a base with so many tokens that its `stops` end.

        Raises PromptError for what cannot be followed, MissingPackage without llguidance.
        """
        matcher = _llguidance().LLMatcher
        tokens = _tokens_of(tokenizer, vocabulary, tuple(stops))
        text = _text_of(wanted, matcher)
        wrong, said = matcher.validate_grammar_with_warnings(text, tokens)
        if wrong:
            raise PromptError(
                f"the {wanted.kind} cannot be followed ({first_line(said[0])}); mend it, or leave out what is not known"
            )
        return cls(text, tokens, frozenset(stops), vocabulary)

    def constraint(self, prompt: int | None = None) -> "Constraint":
        """For one answer, after a prompt of so many tokens; None: those of the first text that it is shown."""
        return Constraint(self, _llguidance().LLMatcher(self.tokens, self.text, log_level=0), prompt)


@dataclass(eq=False)
class Constraint(LogitsProcessor):  # type: ignore[misc]
    """The grammar of one answer: the tokens that may come after each of its texts, in any order of asking."""

    grammar: Grammar
    matcher: Any
    prompt: int | None
    _read: list[int] = field(default_factory=list)
    _dead: dict[tuple[int, ...], str] = field(default_factory=dict)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (1, V) after `input_ids` (1, L) int64: no chance for what the grammar forbids there."""
        if self.prompt is None:
            self.prompt = input_ids.shape[1]
        allowed = self.allowed(input_ids[0, self.prompt :].tolist())
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """(V,) bool: what may come after `answer`, which the grammar allowed; a stop token alone where it has ended.

        Where no token may come, a stop token ends the answer too, and `failure` says why.
        """
        mask = torch.zeros(self.grammar.vocabulary, dtype=torch.bool)
        if self._go_to(answer):
            bits = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)
            spread = (bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
            mask = spread.flatten()[: self.grammar.vocabulary].bool()
            if self.matcher.is_error() or not mask.any():
                self._dead[tuple(answer)] = first_line(self.matcher.get_error() or "no token fits")
                self._begin_anew()
                mask = torch.zeros_like(mask)
        if not mask.any():
            mask[list(self.grammar.stops)] = True
        return mask

    def forced(self, answer: Sequence[int], most: int) -> tuple[int, ...]:
        """Tokens that most likely must come after `answer`, at most so many: drafts that cost no mask."""
        if not self._go_to(answer):
            return ()
        return tuple(self.matcher.compute_ff_tokens()[:most])

    def failure(self, answer: Sequence[int]) -> str:
        """Why the grammar could not be kept to in `answer`; empty: it was, as far as the answer goes."""
        whole = tuple(answer)
        found = [
            (text, why) for text, why in self._dead.items() if whole[: len(text)] == text and len(text) < len(whole)
        ]
        if found:
            text, why = min(found, key=lambda pair: len(pair[0]))
            return f"after {len(text)} tokens the grammar allows none that this model has ({why[:LONGEST_LEFT]})"
        said = list(takewhile(lambda token: token not in self.grammar.stops, answer))
        if self._go_to(said) and (len(said) == len(answer) or self.matcher.is_accepting()):
            return ""
        # Other rules can leave nothing of what the grammar allows; the best of nothing is then any token.
        return f"after {len(self._read)} tokens the grammar allows none that the other settings leave"

    def check(self, answer: Sequence[int]) -> None:
        """Raise PromptError for an answer that did not keep to the grammar."""
        failure = self.failure(answer)
        if failure:
            raise PromptError(f"{failure}; loosen the grammar, or what else rules tokens out")

    def _go_to(self, answer: Sequence[int]) -> bool:
        """Bring the matcher to `answer`; false: the grammar ended before its end."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._read, answer)))
        if same < len(self._read):
            self.matcher.rollback(len(self._read) - same)
            del self._read[same:]
        taken = self.matcher.try_consume_tokens(list(answer[same:]))
        self._read += answer[same : same + taken]
        return len(self._read) == len(answer) and (not answer or answer[-1] not in self.grammar.stops)

    def _begin_anew(self) -> None:
        """A matcher that failed does not go back."""
        self.matcher = self.grammar.constraint().matcher
        self._read = []


def grammar_of(
    structured: Any, tokenizer: Callable[[], PreTrainedTokenizerBase], vocabulary: int, stops: Sequence[int]
) -> Grammar | None:
    """The grammar of what `generate` takes as `structured`: settings, a JSON schema or a class with one; None: none.

    Raises PromptError, MissingPackage.
    """
    if structured is None or isinstance(structured, Grammar):
        return structured
    if isinstance(structured, dict | str):
        structured = StructuredOutputs(json=structured)
    elif hasattr(structured, "model_json_schema"):
        structured = StructuredOutputs(json=structured.model_json_schema())
    if not isinstance(structured, StructuredOutputs):
        raise PromptError(
            f"structured is a {type(structured).__name__}; give a JSON schema (a dict or its text), a pydantic model, "
            "or StructuredOutputs(regex=..., choice=..., grammar=...)"
        )
    return Grammar.of(structured, tokenizer(), vocabulary, stops)


def _llguidance() -> Any:
    try:
        import llguidance  # noqa: PLC0415
        import llguidance.hf  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackage("structured output needs llguidance", "structured") from error
    return llguidance


@lru_cache(maxsize=8)
def _tokens_of(tokenizer: PreTrainedTokenizerBase, vocabulary: int, stops: tuple[int, ...]) -> Any:
    """llguidance's form of a tokenizer, which takes it a second to make."""
    if not stops:
        raise PromptError(
            "the base has no stop token to end a structured answer with; set eos_token_id in its generation config"
        )
    try:
        return _llguidance().hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(stops))
    except (ValueError, RuntimeError, AttributeError) as error:
        raise PromptError(
            f"this tokenizer cannot follow a grammar ({first_line(error)}); give a base with a fast tokenizer of bytes"
        ) from error


def _text_of(wanted: StructuredOutputs, matcher: Any) -> str:
    """As llguidance takes it. Raises PromptError for JSON that is none."""
    if wanted.regex is not None:
        return str(matcher.grammar_from_regex(wanted.regex))
    if wanted.choice is not None:
        return str(matcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, wanted.choice))))
    if wanted.grammar is not None:
        return str(matcher.grammar_from_lark(_lark(wanted.grammar)))
    schema: Any = {"type": "object"} if wanted.json is None else wanted.json
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise PromptError(f"the JSON schema is no JSON ({error}); give a JSON object") from None
    if not isinstance(schema, dict):
        raise PromptError(f"the JSON schema is a {type(schema).__name__}; give a JSON object")
    options = {
        "whitespace_flexible": not wanted.disable_any_whitespace,
        "whitespace_pattern": wanted.whitespace_pattern,
    }
    return str(matcher.grammar_from_json_schema(schema, overrides=options))


def _lark(text: str) -> str:
    """A grammar in llama.cpp's form (GBNF) as Lark, which others are left as."""
    from llguidance.gbnf_to_lark import any_to_lark  # noqa: PLC0415

    try:
        return str(any_to_lark(text))
    except Exception as error:  # the library raises bare ones
        raise PromptError(f"the grammar cannot be read ({first_line(error)}); give Lark or GBNF") from None
