"""What a text or a chat is in tokens, and back, as vLLM's servers say it: to count a prompt before it is asked."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from foresay.data.chat import text_ids
from foresay.foundation.errors import PromptError
from foresay.serving.openai.forms import Message, Strict, Tool, check_whole
from foresay.serving.openai.schema import Token
from foresay.serving.openai.service import Service, chat_ids


class TokenizeRequest(Strict):
    """Body of `/tokenize`: a text, or a chat as `/v1/chat/completions` takes it."""

    model: str = ""
    """The model that is served; empty: the same."""
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] = Field(default=[])
    """Of a chat."""
    add_special_tokens: bool | None = None
    """Put in front of a text what the tokenizer puts there; left out: yes. A chat has what its template writes."""
    add_generation_prompt: Literal[True] = True
    """Taken where it is on: a chat ends where the answer begins."""
    return_token_strs: bool = False
    """Name each token's text too."""

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, body: Any) -> Any:
        check_whole(body)
        return body

    @model_validator(mode="after")
    def _one(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt (a text) or messages (a chat), one of both")
        if self.messages is None and self.tools:
            raise ValueError("tools belong to a chat; give messages, or leave tools out")
        if self.messages is not None and self.add_special_tokens:
            raise ValueError("add_special_tokens is true, and a chat has what its template writes; leave it out")
        return self


class Tokenized(BaseModel):
    """The reply of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Strict):
    """Body of `/detokenize`."""

    model: str = ""
    """The model that is served; empty: the same."""
    tokens: list[Token]


class Detokenized(BaseModel):
    """The reply of `/detokenize`."""

    prompt: str


def tokenize(service: Service, asked: TokenizeRequest) -> Tokenized:
    """What is asked, in tokens of the model that is served. Raises PromptError."""
    tokenizer = service.tokenizer
    if asked.messages is None:
        ids = text_ids(tokenizer, asked.prompt or "", asked.add_special_tokens is not False)
    else:
        ids = chat_ids(tokenizer, asked.messages, asked.tools)
    texts = tokenizer.convert_ids_to_tokens(ids) if asked.return_token_strs else None
    return Tokenized(count=len(ids), max_model_len=service.engine.longest, tokens=ids, token_strs=texts)


def detokenize(service: Service, asked: DetokenizeRequest) -> Detokenized:
    """The text of tokens, special ones too. Raises PromptError for a token that the tokenizer does not have."""
    known = len(service.tokenizer)
    if strange := [token for token in asked.tokens if token >= known]:
        raise PromptError(f"tokens holds {strange[0]} and the tokenizer has 0 to {known - 1}; leave it out")
    return Detokenized(prompt=str(service.tokenizer.decode(asked.tokens)))
