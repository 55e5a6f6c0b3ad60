"""Chats as transformers' templates take them, and token ids of chats and of plain text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from foresay.foundation.errors import DataError

Message = dict[str, Any]
"""One turn: `role`, `content` (text), and whatever else a template may render (`tool_calls`, `reasoning_content`)."""
REFUSALS = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What a template raises on messages that it does not take."""
USUAL = ("user", "assistant")


def says(value: Any) -> bool:
    """Whether a value of a row or message holds anything."""
    return value is not None and value not in ("", [], {})


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, and the tools that it may call."""

    messages: list[Message]
    tools: list[Any] | None = None
    """As `apply_chat_template` takes them."""
    untaught: frozenset[int] = frozenset()
    """Turns of the assistant (places in `messages`, from 0) without loss: their `weight` is 0."""
    columns: frozenset[str] = frozenset()
    """Columns of the row that it was read from."""

    def ids(self, tokenizer: PreTrainedTokenizerBase, turns: int | None = None, prompt: bool = False) -> list[int]:
        """Token ids of the first `turns` messages (None: all); with the opening of an answer when `prompt`."""
        return template_ids(tokenizer, self.messages[:turns], prompt, self.tools)

    @property
    def asked(self) -> "Chat":
        """What stands before the last answer; all of it where the last message is no answer."""
        ends = bool(self.messages) and self.messages[-1]["role"] == "assistant"
        return replace(self, messages=self.messages[:-1] if ends else self.messages)

    def unread(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Names of what the chat template does not render: `tools`, fields and roles of messages.

        Raises DataError for a message that says nothing but that.
        """
        named = (name for message in self.messages for name, value in message.items() if says(value))
        fields = {*named} - {"role", "content"}
        unread = {name for name in fields if not self._renders(tokenizer, name)}
        for turn, message in enumerate(self.messages, 1):
            lost = sorted(unread & message.keys())
            if lost and not message["content"] and not message.keys() - {"role", "content"} - unread:
                raise DataError(
                    f"message {turn} says nothing but {', '.join(lost)}, which the chat template does not render; give "
                    "it a content, or a base whose template does"
                )
        if self.tools and not self._renders(tokenizer, "tools"):
            unread.add("tools")
        roles = {message["role"] for message in self.messages} - {*USUAL}
        return sorted(unread) + [f"{role} messages" for role in sorted(roles) if not self._voices(tokenizer, role)]

    def _renders(self, tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
        """The template names this field, or its text is another without it (as one that writes whole messages)."""
        if tokenizer.chat_template is None:
            return False
        if name in tokenizer.get_chat_template(tools=self.tools):
            return True
        bare = [{key: value for key, value in message.items() if key != name} for message in self.messages]
        return self.ids(tokenizer) != template_ids(tokenizer, bare, False, None if name == "tools" else self.tools)

    def _voices(self, tokenizer: PreTrainedTokenizerBase, role: str) -> bool:
        """The template writes messages of this role."""
        if tokenizer.chat_template is None:
            return True
        without = [message for message in self.messages if message["role"] != role]
        try:
            return not without or self.ids(tokenizer) != template_ids(tokenizer, without, False, self.tools)
        except DataError:  # without them it is no conversation, so they count
            return True


def encode(tokenizer: PreTrainedTokenizerBase, text: str, raw: bool = False) -> list[int]:
    """Token ids of a user's message: through the chat template where there is one, unless `raw`. Raises DataError."""
    check_whole(text)
    if tokenizer.chat_template is not None and not raw:
        return template_ids(tokenizer, [{"role": "user", "content": text}], prompt=True)
    return text_ids(tokenizer, text)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, opens: bool = True) -> list[int]:
    """Token ids of a text that something follows: with what the tokenizer puts in front when it `opens` a sequence.

    A stop token that the tokenizer itself puts at the end is taken off. Raises DataError for half a character.
    """
    check_whole(text)
    ids: list[int] = tokenizer(text, add_special_tokens=opens, verbose=False)["input_ids"]
    stop = tokenizer.eos_token
    if opens and ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(stop):
        # An empty text must keep the token that stands in front of it, even where that is the stop token.
        ids = ids[:-1] if len(ids) > 1 else ids
    return ids


def check_whole(text: str) -> None:
    """Raise DataError for a text with half a character (a lone surrogate), which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a character (U+{ord(text[error.start]):04X}) stands at character {error.start + 1}; mend the text, "
            "or send it as UTF-8"
        ) from None


def check_known(ids: Sequence[int], vocabulary: int) -> None:
    """Raise DataError for a token past the `vocabulary` rows of the base's embeddings (0: unknown, all pass)."""
    if vocabulary and ids and max(ids) >= vocabulary:
        raise DataError(
            f"token {max(ids)} stands in it and the base knows 0 to {vocabulary - 1}; use the base's own tokenizer, or "
            "resize the base's embeddings and save it"
        )


@contextmanager
def refused_by_template() -> Iterator[None]:
    """Turn whatever a chat template raises into a DataError that says so."""
    try:
        yield
    except REFUSALS as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the chat template refuses the messages ({why}); mend them") from error


@contextmanager
def at(place: str) -> Iterator[None]:
    """Put `place` (file and line) in front of what a DataError says."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"{place}: {error}") from error


def template_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: bool, tools: list[Any] | None = None
) -> list[int]:
    """Token ids of chat messages, with the opening of an answer when `prompt`.

    Raises DataError for messages that the chat template does not take.
    """
    if not messages:
        raise DataError("there is no message before the answer; begin with a user's message")
    with refused_by_template():
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)
    return text_ids(tokenizer, text, opens=False)
