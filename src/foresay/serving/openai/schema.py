"""What may be asked: OpenAI's parameters that are served, with their bounds. Everything else is refused by name."""

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from foresay.decoding.config import PenaltyConfig, SampleConfig, StructuredOutputs
from foresay.serving.openai.forms import (
    Message,
    ResponseFormat,
    Strict,
    StructuredBody,
    Text,
    Tool,
    ToolChoice,
    check_whole,
)

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
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "tools": ([],),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing, of parameters that are not served or of one path alone: OpenAI's and vLLM's."""
COLDEST = 0.01
"""Least temperature but 0: below it logits leave the range of float32."""
Token = Annotated[int, Field(ge=0)]


def _asks_nothing(name: str, value: Any) -> bool:
    """A parameter that is not served, with a value that changes nothing."""
    return any(value == neutral for neutral in NEUTRAL.get(name, ()))


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
    """Most tokens of an answer; null: as many as the server was started with (`--max-new-tokens`)."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    """0 and -1: all (vLLM's extension)."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """vLLM's extension."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Of the draws; the i-th answer of `n` has the seed `seed + i`."""
    stop: Text | Annotated[list[Text], Field(max_length=16)] = Field(default=[])
    """An answer ends before the first of these strings."""
    n: Annotated[int, Field(ge=1, le=128)] = 1
    """Answers to each prompt."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """vLLM's extension."""
    logit_bias: dict[Annotated[str, Field(pattern="^[0-9]+$")], Annotated[float, Field(ge=-100, le=100)]] = Field(
        default={}
    )
    """Added to the logits of tokens, by their number."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """No stop token or stop string ends an answer before (vLLM's extension)."""
    ignore_eos: bool = False
    """Go on past stop tokens (vLLM's extension)."""
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredBody | None = None
    """vLLM's extension."""
    prompt_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Name the chances of the prompt's own tokens too, and of so many likely ones beside each (vLLM's extension)."""
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
        check_whole(body)
        own = cls.model_fields
        return {
            name: value
            for name, value in body.items()
            if value is not None and (name in own or not _asks_nothing(name, value))
        }

    @model_validator(mode="after")
    def _consistent(self) -> "GenerationRequest":
        if 0 < self.temperature < COLDEST:
            raise ValueError(f"temperature is {self.temperature}; give 0, or {COLDEST} or more")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are given without stream; set stream to true, or leave them out")
        if self.stream and self.prompt_logprobs is not None:
            raise ValueError("prompt_logprobs come with a whole reply; set stream to false, or leave them out")
        if self.stream and self.top is not None and getattr(self, "echo", False):
            raise ValueError("echo with logprobs comes with a whole reply; set stream to false, or leave one out")
        if self.limit is not None and self.min_tokens > self.limit:
            raise ValueError(f"min_tokens is {self.min_tokens} and max_tokens {self.limit}; give at most as many")
        if self.form is not None and self.ignore_eos:
            raise ValueError("ignore_eos goes on past the end of what response_format asks for; leave one of them out")
        return self

    @property
    def form(self) -> StructuredOutputs | None:
        """What form the answer has. Raises ValueError for two of them."""
        own = self.response_format and self.response_format.settings
        if own and self.structured_outputs:
            raise ValueError("response_format and structured_outputs are given; leave one of them out")
        return self.structured_outputs.settings if self.structured_outputs else own or None

    @property
    def bias(self) -> tuple[tuple[int, float], ...]:
        """(token, what is added to its logit), where that is anything."""
        return tuple((int(token), value) for token, value in sorted(self.logit_bias.items()) if value)

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


class ChatRequest(GenerationRequest):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] = Field(default=[])
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool = True
    """False: at most one call in an answer."""

    @model_validator(mode="after")
    def _tools_known(self) -> "ChatRequest":
        names = [tool.function.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("two tools have one name; give each its own")
        if isinstance(self.tool_choice, ToolChoice) and self.tool_choice.function.name not in names:
            raise ValueError(
                f"tool_choice names {self.tool_choice.function.name!r}, and no tool is called so; name one"
            )
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required and there are no tools; give some")
        if self.calls and self.form is not None:
            raise ValueError("an answer that may call tools has no other form; leave out response_format or tools")
        return self

    @property
    def calls(self) -> bool:
        """The answer may call tools."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def called(self) -> list[Tool]:
        """Tools of which the answer must call one; empty: it may call any, or none."""
        if isinstance(self.tool_choice, ToolChoice):
            return [tool for tool in self.tools if tool.function.name == self.tool_choice.function.name]
        return self.tools if self.tool_choice == "required" else []

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
    echo: bool = False
    """The prompt stands before each answer, with log probabilities of its tokens where those were asked for."""
    add_special_tokens: bool = True
    """Put in front of a text what the tokenizer puts there (vLLM's extension)."""

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
