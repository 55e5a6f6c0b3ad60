"""A chat with a model, turn by turn: what was said stands before what is said next."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from foresay.data.chat import template_ids
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import Tally, tally
from foresay.decoding.planners import Planners
from foresay.decoding.steps import Generation, Step
from foresay.foundation.errors import PromptError
from foresay.model import MultiTokenModel
from foresay.serving.rules import Rules


@dataclass(slots=True)
class Conversation:
    """Messages so far, and what the answers took."""

    model: MultiTokenModel
    decode: DecodeConfig
    rules: Rules
    messages: list[dict[str, str]] = field(default_factory=list)
    said: list[Generation] = field(default_factory=list)
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
        ids = template_ids(tokenizer, asked, prompt=True)
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

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = []

    def count(self) -> Tally:
        """What all answers took, those before a reset too."""
        return tally(self.said)
