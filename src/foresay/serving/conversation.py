"""A chat with a model, turn by turn: what was said stands before what is said next."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from foresay.data.chat import Message, template_ids
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import Tally, tally
from foresay.decoding.planners import Planners
from foresay.decoding.steps import Generation, Step
from foresay.foundation.errors import DataError, PromptError
from foresay.model import MultiTokenModel
from foresay.serving.rules import Rules

SPEAKERS = ("user", "assistant")


def has_place(tokenizer: PreTrainedTokenizerBase, messages: list[Message], role: str) -> bool:
    """Whether the chat template renders messages of `role` as what they are: not left out, not as a speaker's words."""
    ids = template_ids(tokenizer, messages, prompt=True)
    without = [message for message in messages if message["role"] != role]
    others = (_ids_of(tokenizer, without), *(_ids_of(tokenizer, _said_by(s, messages, role)) for s in SPEAKERS))
    return ids not in others


def _said_by(speaker: str, messages: list[Message], role: str) -> list[Message]:
    """The same messages, if `speaker` had said what `role` says."""
    return [message | {"role": speaker} if message["role"] == role else message for message in messages]


def _ids_of(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """The prompt; empty where there are no messages, or the template takes no such ones."""
    try:
        return template_ids(tokenizer, messages, prompt=True) if messages else []
    except DataError:
        return []


@dataclass(slots=True)
class Conversation:
    """Messages so far, and what the answers took."""

    model: MultiTokenModel
    decode: DecodeConfig
    rules: Rules
    messages: list[dict[str, str]] = field(default_factory=list)
    said: list[Generation] = field(default_factory=list)
    system: str = ""
    """What the model is told before all that is said; empty: nothing."""
    planners: Planners | None = None
    """What chooses layouts, once the chat is prepared, where they are planned."""

    def prepare(self) -> None:
        """See that there can be a chat. Raises PromptError for a model that cannot."""
        if self.model.require_tokenizer().chat_template is None:
            raise PromptError(f"{self.model.base_name} has no chat template; use foresay generate")
        if self.decode.layout == "planned":
            self.planners = self.model.planners(self.decode.masks)

    def ask(self, text: str, watch: Callable[[Step], None]) -> Generation:
        """The answer to `text`, told step by step; an interrupted one stays as far as it came.

        Raises PromptError when the chat has grown past the context; nothing is kept then.
        """
        tokenizer, steps = self.model.require_tokenizer(), list[Step]()
        asked = [*self.messages, {"role": "user", "content": text}]
        ids = template_ids(tokenizer, [*self._told(self.system), *asked], prompt=True)
        self.model.check_prompts([ids], self.decode)

        def tell(index: int, step: Step) -> None:
            steps.append(step)
            watch(step)

        seeded = replace(self.rules.sample, seed=self.rules.sample.seed + len(self.said))
        hooks = replace(self.rules, sample=seeded).hooks(self.model, ids)
        how = replace(hooks, watch=tell, planner=self.planners)
        try:
            [generation] = self.model.decode([ids], self.decode, how)
        finally:
            said = Generation(tuple(steps), "stop")
            answer = tokenizer.decode(said.tokens, skip_special_tokens=True)
            self.messages = [*asked, {"role": "assistant", "content": answer}]
            self.said.append(said)
        return generation

    def instruct(self, system: str) -> None:
        """Tell the model `system` before all that is said, from the next answer on.

        Raises PromptError where the model's chat template has no place for it; then nothing changes.
        """
        asked = [*self._told(system), {"role": "user", "content": "Hi"}]
        if not has_place(self.model.require_tokenizer(), asked, "system"):
            raise PromptError("the model's chat template has no place for a system message; say it in a message")
        self.system = system

    @staticmethod
    def _told(system: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": system}] if system else []

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = []

    def count(self) -> Tally:
        """What all answers took, those before a reset too."""
        return tally(self.said)
