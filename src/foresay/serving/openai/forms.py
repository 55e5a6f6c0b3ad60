"""Parts of requests: messages, tools, and what form an answer is to have."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foresay.decoding.config import StructuredOutputs
from foresay.foundation.errors import ConfigError

Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """No unknown field, no conversion between types, no infinite number."""

    # What stands under a field is what `/docs` says of it.
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


def check_whole(body: Any) -> None:
    """Raise ValueError for a body that is no text, or that no JSON can be made of."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise ValueError("the body holds half a character, or is nested too deep; mend it") from None


class StructuredBody(Strict):
    """vLLM's `structured_outputs`."""

    schema_: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    json_object: bool = False
    regex: Text | None = None
    choice: Annotated[list[Text], Field(min_length=1)] | None = None
    grammar: Text | None = None
    whitespace_pattern: Text | None = None
    disable_any_whitespace: bool = False

    @property
    def settings(self) -> StructuredOutputs:
        """The same, as foresay has it. Raises ConfigError for none of the forms, or several."""
        given = self.model_dump(exclude={"schema_", "choice"})
        return StructuredOutputs(json=self.schema_, choice=tuple(self.choice) if self.choice else None, **given)

    @model_validator(mode="after")
    def _one(self) -> "StructuredBody":
        try:
            _ = self.settings
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


class NamedSchema(Strict):
    """What `json_schema` of a response format holds."""

    name: str = ""
    description: str = ""
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Taken: every schema is kept to."""


class ResponseFormat(Strict):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given with the type json_schema, and with no other; mend one of them")
        return self

    @property
    def settings(self) -> StructuredOutputs | None:
        """The same, as foresay has it; None: any text."""
        if self.json_schema is not None:
            return StructuredOutputs(json=self.json_schema.schema_)
        return StructuredOutputs(json_object=True) if self.type == "json_object" else None


class Function(Strict):
    """A function that the model may call."""

    name: Text
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of its arguments."""
    strict: bool | None = None
    """Taken: calls that are asked for are kept to their schema, others are as the model writes them."""


class Tool(Strict):
    """OpenAI's tool: a function."""

    type: Literal["function"] = "function"
    function: Function

    @property
    def shown(self) -> dict[str, Any]:
        """As chat templates take it."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True, exclude={"strict"})}


class NamedFunction(Strict):
    """The function of a tool choice."""

    name: Text


class ToolChoice(Strict):
    """One function that is to be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


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
    tool_calls: list[dict[str, Any]] = Field(default=[])
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
