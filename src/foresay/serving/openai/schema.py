"""What may be asked: OpenAI's parameters that are served, with their bounds. Everything else is refused by name."""

import json
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foresay.decoding.config import PenaltyConfig, SampleConfig

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "best_of": (1,),
    "continue_final_message": (False,),
    "detokenize": (True,),
    "early_stopping": (False,),
    "echo": (False,),
    "functions": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "metadata": ({},),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (False, True),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Values of parameters that are not served, but ask for nothing: OpenAI's defaults, and those of vLLM's extensions."""
COLDEST = 0.01
"""Least temperature but 0: below it logits leave the range of float32."""
Text = Annotated[str, Field(min_length=1)]
Token = Annotated[int, Field(ge=0)]


def _asks_nothing(name: str, value: Any) -> bool:
    """A parameter that is not served, with a value that changes nothing."""
    if name == "logit_bias" and isinstance(value, dict):
        return not any(value.values())
    return any(value == neutral for neutral in NEUTRAL.get(name, ()))


class Strict(BaseModel):
    """No unknown field, no conversion between types, no infinite number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(Strict):
    """What a stream carries beside text."""

    include_usage: bool = False
    """One more chunk at the end, with the usage."""
    continuous_usage_stats: bool = False
    """The usage so far in every chunk (vLLM's extension)."""
    include_obfuscation: Literal[False] = False
    """Taken where it is off: chunks are never padded."""


class GenerationRequest(Strict):
    """What every kind of request may ask for."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    """0 and -1: all (vLLM's extension)."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """vLLM's extension."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] = []
    n: Annotated[int, Field(ge=1, le=128)] = 1
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """vLLM's extension."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str = ""
    """Taken, and used for nothing."""
    return_token_ids: bool = False
    """Name each answer's tokens, those of a stop string or stop token that closed it among them (vLLM's extension,
    without the prompt's)."""
    layout: Literal["plain"] | None = None
    """`plain`: decode this request one token a step, for comparison (foresay's extension)."""

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            raise ValueError("the body holds half a character, or is nested too deep; mend it") from None
        return {name: value for name, value in body.items() if value is not None and not _asks_nothing(name, value)}

    @model_validator(mode="after")
    def _consistent(self) -> "GenerationRequest":
        if 0 < self.temperature < COLDEST:
            raise ValueError(f"temperature is {self.temperature}; give 0, or {COLDEST} or more")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are given without stream; set stream to true, or leave them out")
        return self

    @property
    def stops(self) -> list[str]:
        """Stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer."""
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """Most likely tokens to name beside each; None: no log probabilities."""
        raise NotImplementedError

    def samples(self, count: int) -> list[SampleConfig]:
        """How the tokens of so many answers are chosen: seeds count up."""
        seed = secrets.randbits(62) if self.seed is None else self.seed % 2**63
        return [
            SampleConfig(
                temperature=self.temperature,
                top_k=max(self.top_k, 0),
                top_p=self.top_p,
                min_p=self.min_p,
                seed=(seed + place) % 2**63,
            )
            for place in range(count)
        ]

    @property
    def penalties(self) -> PenaltyConfig:
        """What makes repeated tokens less likely."""
        return PenaltyConfig(
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
        )


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One turn of a chat, as chat templates take it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] = ""
    name: str = ""
    """Said by templates that render it."""
    reasoning_content: str = ""
    """Thoughts before the content; refused by templates that do not render them."""
    tool_calls: list[dict[str, Any]] = []
    """Calls of an earlier answer; refused by templates that do not render them."""
    tool_call_id: str = ""
    """Of a tool's result; said by templates that render it."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, body: Any) -> Any:
        """A reply of ours, sent back as a turn, has a null for everything that it lacks."""
        if not isinstance(body, dict):
            return body
        if body.get("content") is None and not (body.get("reasoning_content") or body.get("tool_calls")):
            raise ValueError(f"content is {'null' if 'content' in body else 'missing'}; give the message's text")
        return {key: value for key, value in body.items() if value is not None}

    @property
    def row(self) -> dict[str, Any]:
        """What was sent of it, as a row of a data file has it."""
        return {"content": self.model_dump()["content"], **self.model_dump(exclude_defaults=True)}


class ChatRequest(GenerationRequest):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _named_once(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is given without logprobs; set logprobs to true, or leave it out")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        return self

    @property
    def limit(self) -> int | None:
        """See `GenerationRequest.limit`."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        """See `GenerationRequest.top`."""
        return self.top_logprobs or 0 if self.logprobs else None


class CompletionRequest(GenerationRequest):
    """Body of `/v1/completions`."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=128)]
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1, max_length=128)]
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def top(self) -> int | None:
        """See `GenerationRequest.top`."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Texts, or token ids."""
        given: Any = self.prompt
        return [given] if isinstance(given, str) or isinstance(given[0], int) else given


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    error: ErrorDetail
