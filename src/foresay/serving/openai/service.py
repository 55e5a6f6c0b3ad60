"""A model that is served: its engines, the thread that runs them, and what requests become for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from foresay.data.chat import text_ids
from foresay.data.columns import conversation
from foresay.data.records import Record
from foresay.decoding.config import DecodeConfig, QueueConfig, StructuredOutputs
from foresay.decoding.engine import Engine
from foresay.decoding.generate import check_prompts
from foresay.decoding.planners import Planners
from foresay.decoding.requests import Request
from foresay.decoding.sampling.per_request import NO_LIMITS, Limits
from foresay.foundation.errors import PromptError
from foresay.model import MultiTokenModel
from foresay.serving.conversation import SPEAKERS, has_place
from foresay.serving.openai.forms import Message, Tool, ToolChoice
from foresay.serving.openai.memory_check import check_room
from foresay.serving.openai.prometheus import Metrics
from foresay.serving.openai.schema import ChatRequest, CompletionRequest, GenerationRequest
from foresay.serving.openai.tools import ToolFormat
from foresay.serving.openai.worker import Listener, Wanted, Worker
from foresay.serving.rules import Rules, own_rules

G = TypeVar("G", bound=GenerationRequest)
BESIDE = 4
"""Answers that may be decoded plainly at once, for comparison."""


class Service:
    """Answers requests, until it is closed."""

    def __init__(
        self, model: MultiTokenModel, name: str, decode: DecodeConfig, queue: QueueConfig, rules: Rules | None = None
    ) -> None:
        """Ready at once: what steps cost is measured while nobody waits, where the layout is `planned`.

        `rules` hold where a request is silent; None: the base's own.

        Raises ConfigError for texts that the base cannot serve together, or that memory does not hold.
        """
        self.name, self.tokenizer, self._model = name, model.require_tokenizer(), model
        self.tokens = decode.max_new_tokens
        self.rules = own_rules(model.base.model.generation_config) if rules is None else rules
        plain, few = replace(decode, layout="plain"), replace(queue, sequences=min(queue.sequences, BESIDE))
        wanted = {decode: queue}
        wanted.setdefault(plain, few)
        tokens = queue.max_length or model.base.limits[0]
        check_room(model, {config: share.sequences for config, share in wanted.items()}, tokens, queue.prefix_cache)
        opened = {config: model.engine(config, share) for config, share in wanted.items()}
        self.engine, self.plain = opened[decode], opened[plain]
        self.plain.share_prefixes(self.engine)
        self.engines = list(opened.values())
        places = sum(engine.queue.sequences for engine in self.engines)
        self.metrics = Metrics(name, lambda: self.running, lambda: self.waiting, 1 / places)
        self.metrics.keeps(self.engine.prefixes)
        if isinstance(self.engine.planners, Planners):
            self.metrics.plans_with(self.engine.planners)
        self.worker = Worker(self.engines, self.tokenizer, self.metrics)
        self.worker.start()

    @property
    def layouts(self) -> list[str]:
        """Those that a request may have: as served first, then plain decoding for comparison."""
        return list(dict.fromkeys(engine.config.layout for engine in (self.engine, self.plain)))

    @property
    def reason(self) -> str | None:
        """What `planned` chooses now, and why, in words; None where layouts are not planned."""
        return self.engine.planners.reason() if isinstance(self.engine.planners, Planners) else None

    @property
    def running(self) -> int:
        """Answers being written."""
        return sum(engine.running for engine in self.engines)

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        return sum(engine.waiting for engine in self.engines)

    def prompts(self, asked: ChatRequest | CompletionRequest) -> list[list[int]]:
        """Token ids of what is asked. Raises PromptError."""
        if isinstance(asked, ChatRequest):
            return [chat_ids(self.tokenizer, asked.messages, asked.tools)]
        opens = asked.add_special_tokens
        return [text_ids(self.tokenizer, text, opens) if isinstance(text, str) else text for text in asked.prompts]

    def read(self, asked: ChatRequest | CompletionRequest) -> "Reading":
        """What takes a while: the prompts, the tools and the grammar of a request. Raises PromptError."""
        strange = [token for token, _ in asked.bias if token >= self._model.base.vocabulary]
        if strange:
            raise PromptError(
                f"logit_bias names token {strange[0]} and the base knows 0 to {self._model.base.vocabulary - 1}; leave "
                "it out"
            )
        calls = isinstance(asked, ChatRequest) and asked.calls
        form = ToolFormat.of(self.tokenizer, shown(asked.tools)) if calls and isinstance(asked, ChatRequest) else None
        limits = Limits(self._model.grammar(self._form(asked, form)), asked.bias, asked.min_tokens, asked.ignore_eos)
        return Reading(self.prompts(asked), limits, form)

    def _form(self, asked: ChatRequest | CompletionRequest, form: ToolFormat | None) -> StructuredOutputs | None:
        """What form an answer must have: that of a call, where it must be one."""
        if form is None or not isinstance(asked, ChatRequest) or not asked.called:
            return asked.form
        tools = [tool.shown for tool in asked.called]
        many = asked.parallel_tool_calls and asked.tool_choice == "required"
        return StructuredOutputs(grammar=form.grammar(tools, self.tokenizer, many))

    def ask(self, asked: GenerationRequest, reading: "Reading") -> Listener:
        """Line up `asked.n` answers to each prompt. Raises TooLong, PromptError, BusyError."""
        asked, prompts = self._ruled(asked), reading.prompts
        engine = self.plain if asked.layout == "plain" else self.engine
        # Before anything is copied or repeated: what is refused may be long.
        count, places = len(prompts) * asked.n, engine.queue.waiting + engine.queue.sequences
        if count > places:
            raise PromptError(f"{count} answers were asked for and there is room for {places}; ask for fewer")
        for prompt in prompts:
            engine.check_length(len(prompt), asked.limit or 1)
        check_prompts(engine.model, prompts, engine.config)
        rooms = [asked.limit or self._room(engine, prompt) for prompt in prompts]
        if asked.min_tokens > min(rooms):
            raise PromptError(
                f"min_tokens is {asked.min_tokens} and without max_tokens an answer has at most {min(rooms)}; give a "
                "smaller one, or max_tokens"
            )
        wanted = [(tuple(prompt), room) for prompt, room in zip(prompts, rooms) for _ in range(asked.n)]
        requests = [
            Request(prompt, room, sample, asked.penalties, reading.limits)
            for (prompt, room), sample in zip(wanted, asked.samples(len(wanted)))
        ]
        listener = self.worker.ask(engine, requests, _wanted(asked, reading.tools))
        self.metrics.repeated(asked.n)
        return listener

    def close(self) -> None:
        """End every answer, and the thread."""
        self.worker.abort()
        self.worker.close()

    def _ruled(self, asked: G) -> G:
        """`asked` with the base's own rules where it is silent."""
        own = {**self.rules.taken, **({"stop": list(self.rules.stop_strings)} if self.rules.stop_strings else {})}
        return asked.model_copy(update={name: own[name] for name in own.keys() - asked.model_fields_set})

    def _room(self, engine: Engine, prompt: Sequence[int]) -> int:
        """Tokens of an answer for which nobody named a number."""
        return max(min(self.tokens, engine.longest - len(prompt)), 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """A request, read."""

    prompts: list[list[int]]
    limits: Limits = NO_LIMITS
    tools: ToolFormat | None = None


def shown(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as chat templates take them."""
    return [tool.shown for tool in tools]


def _wanted(asked: GenerationRequest, tools: ToolFormat | None) -> Wanted:
    """What the answers are read for."""
    echoed = asked.top if isinstance(asked, CompletionRequest) and asked.echo else None
    tops = [top for top in (asked.prompt_logprobs, echoed) if top is not None]
    chat = asked if isinstance(asked, ChatRequest) else None
    return Wanted(
        asked.stops,
        asked.top,
        max(tops, default=None),
        asked.min_tokens,
        tools,
        chat is None or chat.parallel_tool_calls,
        chat is not None and isinstance(chat.tool_choice, ToolChoice),
    )


def chat_ids(tokenizer: PreTrainedTokenizerBase, said: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
    """Token ids of a chat. Raises PromptError for what the model's chat template does not render."""
    if tokenizer.chat_template is None:
        raise PromptError("this model has no chat template; use /v1/completions")
    row = {"messages": [message.row for message in said], "tools": shown(tools)}
    chat = conversation(Record("", row), answers=False)
    assert chat is not None, "messages are a conversation"
    ids, messages = chat.ids(tokenizer, prompt=True), chat.messages
    lost = {field for message in messages for field in message} & {*chat.unread(tokenizer)} - {"name", "tool_call_id"}
    if chat.tools and "tools" in chat.unread(tokenizer):
        raise PromptError(
            "the model's chat template does not render tools; describe them in a message, or leave them out"
        )
    if lost:
        raise PromptError(f"the model's chat template does not render {', '.join(sorted(lost))}; leave it out")
    for role in sorted({message.role for message in said} - set(SPEAKERS)):
        if not has_place(tokenizer, messages, role):
            raise PromptError(
                f"the model's chat template has no place for {role} messages; put the text into the first user message"
            )
    return ids
