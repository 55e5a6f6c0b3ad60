"""OpenAI's JSON: what a request is answered with, whole or chunk by chunk."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.decoding.detokenizer import BROKEN
from foresay.decoding.metrics import tally
from foresay.decoding.steps import Generation
from foresay.serving.openai.schema import CompletionRequest, GenerationRequest
from foresay.serving.openai.tools import ToolCall
from foresay.serving.openai.worker import Event, Likely

JSON = dict[str, Any]


@dataclass(slots=True)
class Usage:
    """What a request took, so far."""

    prompt_tokens: int
    answers: int = 1
    """To each prompt: their first says how much of it was cached."""
    completion_tokens: int = 0
    cached_tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0

    def add(self, event: Event) -> None:
        """Count a step, as everything else here is counted."""
        counted = tally([Generation((event.step,), "length")])
        self.completion_tokens += counted.tokens
        self.steps += counted.steps
        self.drafted += counted.drafted
        self.accepted += counted.accepted
        self.cached_tokens += 0 if event.choice % self.answers else event.cached_tokens

    def json(self) -> JSON:
        """OpenAI's usage; steps, drafted and accepted are foresay's."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "steps": self.steps,
            "drafted": self.drafted,
            "accepted": self.accepted,
        }


@dataclass(slots=True)
class Choice:
    """One answer of a whole reply, collected."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    likely: list[Likely] = field(default_factory=list)
    prompt: list[Likely] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    ended: str | None = None

    def add(self, event: Event) -> None:
        """Take in a step."""
        self.text += event.text
        self.tokens += event.step.tokens
        self.likely += event.likely
        self.prompt += event.prompt
        self.calls += event.calls
        self.ended = event.ended


class Reply(ABC):
    """The shape of replies to one kind of request."""

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(
        self,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        asked: GenerationRequest,
        prompts: Sequence[Sequence[int]] = (),
    ) -> None:
        self.tokenizer, self.chances, self.names = tokenizer, asked.top is not None, asked.return_token_ids
        self.prompts, self.asked = prompts, asked
        self._letter = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> JSON:
        """A reply in one piece."""
        said = [
            {"index": index, **self.said(index, choice), "logprobs": self._chances(self.named(index, choice), -1)}
            | {"finish_reason": choice.ended, **self._tokens(choice.tokens)}
            for index, choice in enumerate(choices)
        ]
        whole = {**self._head, "object": self.whole_object, "choices": said, "usage": usage.json()}
        if self.asked.prompt_logprobs is not None:
            self.with_prompts(whole, [self._prompt_chances(choice) for choice in choices])
        return whole

    def chunk(self, event: Event, usage: Usage | None, shown: int) -> JSON:
        """A step of one answer, whose tokens before were `shown` characters; `shown` is -1 for its first."""
        choice = {"index": event.choice, **self.says(event, shown < 0)}
        choice |= {"logprobs": self._chances(event.likely, shown), "finish_reason": event.ended}
        choice |= self._tokens(event.step.tokens)
        return self._chunk([choice], usage)

    def last(self, usage: Usage) -> JSON:
        """The chunk after all answers."""
        return self._chunk([], usage)

    def named(self, index: int, choice: Choice) -> list[Likely]:
        """The tokens whose log probabilities a whole answer names."""
        return choice.likely

    @abstractmethod
    def with_prompts(self, whole: JSON, chances: list[list[JSON | None]]) -> None:
        """Put the log probabilities of prompts, one list for each answer, where they belong."""

    @abstractmethod
    def said(self, index: int, choice: Choice) -> JSON:
        """What a whole answer says."""

    @abstractmethod
    def says(self, event: Event, first: bool) -> JSON:
        """What a step adds."""

    @abstractmethod
    def chances_of(self, likely: Sequence[Likely], shown: int) -> JSON:
        """Log probabilities of tokens, `shown` characters of others before them; -1 where the answer begins."""

    def text_of(self, token: int, first: bool) -> str:
        """What a token adds to an answer, at its start (`first`) or within: some tokenizers drop a space there."""
        before = [] if first else self._letter
        text: str = self.tokenizer.decode([*before, token])
        return text[len(self.tokenizer.decode(before)) :]

    def length(self, event: Event, first: bool) -> int:
        """Characters of a step's tokens, as log probabilities count them: a stop string may hold the text back."""
        said = event.likely if self.chances else ()
        return sum(len(self.text_of(some.token, first and not place)) for place, some in enumerate(said))

    def _prompt_chances(self, choice: Choice) -> list[JSON | None]:
        """As vLLM has them: nothing for the first token, then by number the token itself and the likeliest."""
        most = self.asked.prompt_logprobs or 0
        named: list[JSON | None] = [None]
        for some in choice.prompt:
            ranked = [(token, chance, rank) for rank, (token, chance) in enumerate(some.others[:most], 1)]
            named.append(
                {
                    str(token): {"logprob": chance, "rank": rank, "decoded_token": self.text_of(token, False)}
                    for token, chance, rank in [*ranked, (some.token, some.logprob, some.rank)]
                }
            )
        return named

    def _tokens(self, tokens: Sequence[int]) -> JSON:
        return {"token_ids": list(tokens)} if self.names else {}

    def _chances(self, likely: Sequence[Likely], shown: int) -> JSON | None:
        return self.chances_of(likely, shown) if self.chances else None

    def _chunk(self, choices: list[JSON], usage: Usage | None) -> JSON:
        counted = {} if usage is None else {"usage": usage.json()}
        return {**self._head, "object": self.chunk_object, "choices": choices, **counted}


def _call(call: ToolCall) -> JSON:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class ChatReply(Reply):
    """Replies of `/v1/chat/completions`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def with_prompts(self, whole: JSON, chances: list[list[JSON | None]]) -> None:
        """See `Reply.with_prompts`: a chat has one prompt."""
        whole["prompt_logprobs"] = chances[0]

    def said(self, index: int, choice: Choice) -> JSON:
        """See `Reply.said`."""
        calls = {"tool_calls": [_call(call) for call in choice.calls]} if choice.calls else {}
        content = None if calls and not choice.text else choice.text
        return {"message": {"role": "assistant", "content": content, **calls}}

    def says(self, event: Event, first: bool) -> JSON:
        """See `Reply.says`; a call comes in one piece."""
        calls = [{"index": call.index, **_call(call)} for call in event.calls]
        content = {} if calls and not event.text else {"content": event.text}
        role = {"role": "assistant"} if first else {}
        return {"delta": {**role, **content, **({"tool_calls": calls} if calls else {})}}

    def chances_of(self, likely: Sequence[Likely], shown: int) -> JSON:
        """See `Reply.chances_of`."""
        firsts = [shown < 0 and place == 0 for place in range(len(likely))]
        return {
            "content": [
                self._chance(some.token, some.logprob, first)
                | {"top_logprobs": [self._chance(*other, first) for other in some.others]}
                for some, first in zip(likely, firsts)
            ]
        }

    def _chance(self, token: int, logprob: float | None, first: bool) -> JSON:
        text = self.text_of(token, first)
        return {"token": text, "logprob": logprob, "bytes": None if BROKEN in text else list(text.encode())}


class CompletionReply(Reply):
    """Replies of `/v1/completions`."""

    asked: CompletionRequest
    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def with_prompts(self, whole: JSON, chances: list[list[JSON | None]]) -> None:
        """See `Reply.with_prompts`."""
        for choice, own in zip(whole["choices"], chances):
            choice["prompt_logprobs"] = own

    def named(self, index: int, choice: Choice) -> list[Likely]:
        """See `Reply.named`; of a prompt that is echoed too, whose first token has no chance to name."""
        if not self.asked.echo:
            return choice.likely
        first = Likely(self.prompts[index // self.asked.n][0], None, ())
        return [first, *choice.prompt, *choice.likely]

    def said(self, index: int, choice: Choice) -> JSON:
        """See `Reply.said`."""
        return {"text": self._echoed(index) + choice.text}

    @property
    def _top(self) -> int:
        return self.asked.top or 0

    def _echoed(self, index: int) -> str:
        """The prompt, where it is to stand before the answer."""
        if not self.asked.echo:
            return ""
        given = self.asked.prompts[index // self.asked.n]
        return given if isinstance(given, str) else str(self.tokenizer.decode(given, skip_special_tokens=True))

    def says(self, event: Event, first: bool) -> JSON:
        """See `Reply.says`."""
        return {"text": self._echoed(event.choice) + event.text if first else event.text}

    def chances_of(self, likely: Sequence[Likely], shown: int) -> JSON:
        """See `Reply.chances_of`."""
        firsts = [shown < 0 and place == 0 for place in range(len(likely))]
        texts = [self.text_of(some.token, first) for some, first in zip(likely, firsts)]
        return {
            "tokens": texts,
            "token_logprobs": [some.logprob for some in likely],
            "top_logprobs": [
                # What was said is named too where others were likelier.
                None
                if some.logprob is None
                else {self.text_of(token, first): value for token, value in some.others[: self._top]}
                | {text: some.logprob}
                for some, text, first in zip(likely, texts, firsts)
            ],
            "text_offset": [max(shown, 0) + sum(map(len, texts[:place])) for place in range(len(texts))],
        }
