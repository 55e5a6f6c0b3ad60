"""From a row of a data file to token ids and what of them carries loss."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.data.chat import Chat, at, check_known, refused_by_template, text_ids
from foresay.data.columns import (
    CHAT_COLUMNS,
    GIVEN_COLUMNS,
    PROMPT_COLUMNS,
    RESPONSE_COLUMNS,
    columns_of,
    conversation,
    unread_columns,
)
from foresay.data.example import Example
from foresay.data.records import Record
from foresay.foundation.errors import DataError, LossMaskError

NEEDED = (
    f"needed are messages, or one of {'/'.join(PROMPT_COLUMNS)} with one of {'/'.join(RESPONSE_COLUMNS)} (texts, or "
    "lists of messages), or text"
)
MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one row."""

    schema: str
    """What it was taken for: messages, prompt/response, text or ids."""
    examples: tuple[Example, ...]
    """Empty when no two answer tokens are left within the length."""
    cut: bool
    """Whether tokens were cut off."""
    unread: tuple[str, ...] = ()
    """Columns, and fields and roles of messages, that nothing was learned from."""


class Tokens:
    """Token ids of a row as they grow, and which of them answer."""

    def __init__(self, ids: list[int] | None = None, prompt: int = 0) -> None:
        self.ids = list(ids or ())
        self.answer = [place >= prompt for place in range(len(self.ids))]

    def add(self, ids: list[int], answer: bool) -> None:
        """Append tokens of one kind."""
        self.ids += ids
        self.answer += [answer] * len(ids)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns rows into examples of at most `max_length` tokens, by the tokenizer's chat template where it has one."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    stops: frozenset[int] = frozenset()
    """Tokens that end an answer when decoding; empty: the tokenizer's own."""
    vocabulary: int = 0
    """Rows of the base's embeddings: a token past them is refused; 0: unknown, all pass."""

    @property
    def method(self) -> str:
        """How loss is kept to the assistant's tokens of a chat."""
        if self.tokenizer.chat_template is None:
            return "turns joined, no chat template"
        return "generation markers" if self._marked else "verified prefixes"

    def encode(self, record: Record) -> Encoded:
        """The examples of a row: several where a text is long or the template writes past turns anew.

        Raises DataError for a row that cannot be used, LossMaskError for a template that would teach the wrong tokens.
        """
        row = record.row
        with at(record.place):
            if isinstance(row.get("ids"), list):
                schema, pieces, unread = "ids", [_given(row, self.tokenizer)], unread_columns(row, GIVEN_COLUMNS)
            elif (chat := conversation(record)) is not None:
                schema = "messages" if chat.columns & {*CHAT_COLUMNS} else "prompt/response"
                unread = unread_columns(row, chat.columns) + chat.unread(self.tokenizer)
                pieces = self._chat(chat)
            elif isinstance(row.get("text"), str):
                schema, pieces, unread = "text", self._windows(row["text"]), unread_columns(row, ("text",))
            else:
                raise DataError(f"it has columns {columns_of(row)}; {NEEDED}; name others with --columns")
            for piece in pieces:
                check_known(piece.ids, self.vocabulary)
        examples = tuple(self._examples(pieces, str(row.get("domain") or ""), record.place))
        return Encoded(schema, examples, any(len(piece.ids) > self.max_length for piece in pieces), tuple(unread))

    def _examples(self, pieces: list[Tokens], domain: str, place: str) -> Iterator[Example]:
        for piece in pieces:
            ids, answer = piece.ids[: self.max_length], piece.answer[: self.max_length]
            # The block after the token before an answer's first guesses from its second on: one token teaches nothing.
            if sum(answer[1:]) > 1:
                yield Example(tuple(ids), tuple(answer), domain, place)

    def _windows(self, text: str) -> list[Tokens]:
        ids = text_ids(self.tokenizer, text) + self._stop
        return [Tokens(ids[at : at + self.max_length]) for at in range(0, len(ids), self.max_length)]

    def _chat(self, chat: Chat) -> list[Tokens]:
        """A conversation, with loss on the assistant's turns up to their stop tokens."""
        if not any(message["role"] == "assistant" for message in chat.messages):
            roles = ", ".join(dict.fromkeys(message["role"] for message in chat.messages)) or "no message"
            raise DataError(
                f"there is no assistant message (roles: {roles}), so nothing to learn; mend or remove the row"
            )
        if not any(self._taught(chat, turn) for turn in range(len(chat.messages))):
            raise DataError("no answer of it is taught: each has weight 0, or no message before it; mend or remove it")
        if self.tokenizer.chat_template is None:
            return [self._join(chat)]
        pieces = [self._mark(chat)] if self._marked else self._compare(chat)
        for piece in pieces:
            self._close(piece)
        return pieces

    def _taught(self, chat: Chat, turn: int) -> bool:
        """The turn is an answer to something, and carries loss."""
        return turn > 0 and chat.messages[turn]["role"] == "assistant" and turn not in chat.untaught

    def _mark(self, chat: Chat) -> Tokens:
        """What the template marks as generated; every turn must begin where decoding would begin it."""
        with refused_by_template():
            said = self.tokenizer.apply_chat_template(
                chat.messages, chat.tools, return_assistant_tokens_mask=True, return_dict=True
            )
        tokens = Tokens(said["input_ids"], len(said["input_ids"]))
        tokens.answer = [bool(mark) for mark in said["assistant_masks"]]
        if not any(tokens.answer) or all(tokens.answer):
            share = "all" if any(tokens.answer) else "none"
            raise LossMaskError(
                f"the chat template's generation markers give loss to {share} of the {len(tokens.ids)} tokens; mend "
                "the markers (they go around what the assistant says) or remove them"
            )
        answers = [turn for turn, message in enumerate(chat.messages) if message["role"] == "assistant"]
        for turn in answers:
            # Past turns may be written anew, without their thoughts, but not the last: decoding begins after `asked`.
            asked = chat.ids(self.tokenizer, turn, prompt=True) if turn else []
            if asked and (turn == answers[-1] or tokens.ids[: len(asked)] == asked):
                with at(f"message {turn + 1}"):
                    _check_start(tokens, asked)
        self._silence(chat, tokens, answers)
        return tokens

    def _silence(self, chat: Chat, tokens: Tokens, answers: list[int]) -> None:
        """Take the loss off marked turns that are not taught."""
        untaught = [place for place, turn in enumerate(answers) if not self._taught(chat, turn)]
        marked = spans(tokens.answer)
        if untaught and len(marked) != len(answers):
            raise DataError(
                f"{len(untaught)} answers are not to be taught, and the chat template marks {len(marked)} of "
                f"{len(answers)}, so which is which cannot be told; remove them, or mend the template"
            )
        for start, end in (marked[place] for place in untaught):
            tokens.answer[start:end] = [False] * (end - start)

    def _compare(self, chat: Chat) -> list[Tokens]:
        """What the template adds to each prompt once it is answered.

        Where it writes past turns anew, as templates that drop old thoughts do, a new example begins: it holds just
        what decoding that turn would see.
        """
        pieces = [Tokens()]
        for turn in range(len(chat.messages)):
            if not self._taught(chat, turn):
                continue
            asked = chat.ids(self.tokenizer, turn, prompt=True)
            whole = chat.ids(self.tokenizer, turn + 1)
            if whole[: len(asked)] != asked:
                raise DataError(
                    f"the chat template writes turn {turn + 1} differently once it is answered, so the answer's tokens "
                    "cannot be told from the prompt's; give prompt/response rows instead, or a template with "
                    "generation markers"
                )
            if asked[: len(pieces[-1].ids)] != pieces[-1].ids:
                pieces.append(Tokens())
            pieces[-1].add(asked[len(pieces[-1].ids) :], answer=False)
            pieces[-1].add(whole[len(asked) :], answer=True)
        return pieces

    def _join(self, chat: Chat) -> Tokens:
        """Turn after turn, for a tokenizer without a template: answers carry loss and end with the stop token."""
        tokens = Tokens()
        for turn, message in enumerate(chat.messages):
            answer = message["role"] == "assistant"
            ids = text_ids(self.tokenizer, message["content"], opens=turn == 0)
            tokens.add(ids + (self._stop if answer else []), self._taught(chat, turn))
        return tokens

    def _close(self, tokens: Tokens) -> None:
        """Let each answer end with its stop token: what templates write after it is never decoded."""
        stops = self.stops or frozenset(self._stop)
        if not stops:
            return
        for start, end in spans(tokens.answer):
            last = max((at for at in range(start, end) if tokens.ids[at] in stops), default=None)
            if last is None:
                tail = self.tokenizer.decode(tokens.ids[max(start, end - 4) : end])
                known = ", ".join(repr(self.tokenizer.decode([stop])) for stop in sorted(stops))
                raise LossMaskError(
                    f"the chat template ends an answer with {tail!r} and no stop token ({known}) in its loss, so "
                    "decoding would not stop there; mend the template, or the base's eos_token_id"
                )
            tokens.answer[last + 1 : end] = [False] * (end - last - 1)

    @property
    def _marked(self) -> bool:
        template = self.tokenizer.chat_template
        return isinstance(template, str) and MARKER.search(template) is not None

    @property
    def _stop(self) -> list[int]:
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]


def spans(answer: list[bool]) -> list[tuple[int, int]]:
    """(first, one past the last) of every run of answer tokens."""
    edges = [at for at, (before, now) in enumerate(zip([False, *answer], [*answer, False])) if before != now]
    return list(zip(edges[::2], edges[1::2]))


def _check_start(tokens: Tokens, asked: list[int]) -> None:
    """Raise LossMaskError unless the answer begins just after the prompt that decoding would be given."""
    start = len(asked)
    if tokens.ids[:start] != asked:
        raise LossMaskError(
            "the chat template writes the prompt differently once it is answered, so what is learned is not what is "
            "decoded; mend the template"
        )
    starts = [first for first, _ in spans(tokens.answer)]
    if start not in starts:
        nearest = min(starts, key=lambda first: abs(first - start))
        raise LossMaskError(
            f"its loss begins at token {nearest}, and decoding begins at token {start}; move the template's generation "
            "markers"
        )


def _given(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """A row that brings its own ids; its response, where it has one, must be what they say by this tokenizer."""
    vocabulary, ids, prompt = len(tokenizer), row["ids"], row.get("prompt_tokens", 0)
    known = all(type(token) is int and 0 <= token < vocabulary for token in ids)
    if not known or type(prompt) is not int or not 0 <= prompt <= len(ids):
        raise DataError(
            f"it has ids or prompt_tokens that are no ids below {vocabulary} and no number up to {len(ids)}; give "
            "ids of the base's own tokenizer, or remove the column ids, and the text is read"
        )
    if isinstance(response := row.get("response"), str):
        said: str = tokenizer.decode(ids[prompt:], skip_special_tokens=True)
        if said.strip() != response.strip():
            raise DataError(
                f"it has a response that begins {response[:30]!r} and ids that say {said[:30]!r} by this tokenizer; "
                "generate the data with this base, or remove ids, and the text is read"
            )
    return Tokens(ids, prompt)
