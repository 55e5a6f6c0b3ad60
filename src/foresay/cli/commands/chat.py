"""`foresay chat`: a conversation in the terminal."""

from dataclasses import dataclass, field

from foresay.cli.commands.options import GenerationRules, Model, Opening, Options, rules_for
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, read_line
from foresay.cli.views.text import AnswerStream, only_plain, planned_line, tally_line
from foresay.decoding.config import DecodeConfig, PenaltyConfig, SampleConfig
from foresay.decoding.metrics import tally
from foresay.decoding.steps import Generation, Step
from foresay.foundation.errors import DataError, PromptError
from foresay.foundation.machine import now
from foresay.serving.conversation import Conversation

HELP = (
    "/system TEXT says how to answer, /reset forgets what was said, /stats counts, /help says this, /quit ends; Ctrl-C "
    "stops an answer"
)

ALONE = ("/help", "/reset", "/stats", "/quit")
"""Commands that take no words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCommand:
    """Chat with a model in the terminal; the tokens of each step share a colour.

    /system TEXT says how to answer, /reset forgets what was said, /stats says how many steps it took, /quit or Ctrl-D
    ends. Ctrl-C stops the answer. Lines are edited as in a shell, and the arrow keys bring earlier ones back. It has no
    --json: `foresay generate` does.

    Examples:
      foresay chat smollm2
      foresay chat my-adapter --temperature 0.8 --dtype bfloat16
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    decode: DecodeConfig = field(default_factory=lambda: DecodeConfig(max_new_tokens=512))
    sample: SampleConfig = field(default_factory=SampleConfig)
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    generation_config: GenerationRules = "auto"
    """Where nothing is asked for, `auto` chooses tokens as the base's generation_config.json says, `none` does not."""
    given: Options = field(default_factory=Given)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Read, answer, until the input ends."""
        model = self.opening.open_to_decode(self.model, self.decode, self.given)
        rules = rules_for(model, self.generation_config, self.sample, self.penalties, self.given)
        chat = Conversation(model, self.decode, rules)
        chat.prepare()
        ERR.print(HELP, style="dim", highlight=False)
        while True:
            try:
                text = read_line().strip()
            except (EOFError, KeyboardInterrupt):
                ERR.print()
                return 0
            if text == "/quit":
                return 0
            self._turn(chat, text)

    def _turn(self, chat: Conversation, text: str) -> None:
        """One line of the user's."""
        word, _, rest = text.partition(" ")
        if text == "/help":
            ERR.print(HELP)
        elif text == "/reset":
            chat.reset()
            ERR.print("what was said is forgotten", style="dim", highlight=False)
        elif word == "/system":
            _set_system(chat, rest.strip())
        elif text == "/stats":
            ERR.print(tally_line(chat.count()), highlight=False)
            if chat.planners is not None:
                ERR.print(planned_line(chat.count(), chat.planners.reason()), highlight=False)
        elif not text.isascii() and text != text.encode(errors="ignore").decode():
            ERR.print("this line is not UTF-8; write it in a terminal that sends UTF-8")
        elif word in ALONE:
            ERR.print(f"{word} takes no words after it; write it alone")
        elif text.startswith("/"):
            ERR.print(f"there is no {word}: {HELP}")
        elif text:
            _answer(chat, text)


def _set_system(chat: Conversation, text: str) -> None:
    """Take in how to answer; without words, say what holds."""
    if not text:
        ERR.print(f"system: {chat.system or 'none'}", style="dim", highlight=False)
        return
    try:
        chat.instruct(text)
    except (PromptError, DataError) as error:
        ERR.print(str(error), style="red", highlight=False)
        return
    ERR.print("from the next answer on; /reset too leaves it in place", style="dim", highlight=False)


def _answer(chat: Conversation, text: str) -> None:
    """Show an answer as it grows, and what it took."""
    stream, steps = AnswerStream(chat.model.require_tokenizer(), colour=True), list[Step]()

    def show(step: Step) -> None:
        stream.tell(0, step)
        steps.append(step)

    device = chat.model.base.device
    began, ended = now(device), ""
    try:
        chat.ask(text, show)
    except KeyboardInterrupt:
        ended = "stopped; "
    except (PromptError, DataError) as error:
        ERR.print(f"{error}; or /reset", style="red", highlight=False)
        return
    stream.end()
    tokens, seconds = sum(len(step.tokens) for step in steps), now(device) - began
    rate = tokens / max(len(steps), 1)
    ERR.print(
        f"{ended}{tokens} tokens in {len(steps)} steps: {rate:.2f} tokens per step, {tokens / seconds:.0f} a second",
        style="dim",
        highlight=False,
    )
    counted = tally([Generation(tuple(steps), "stop")])
    if chat.planners is not None and only_plain(counted):
        ERR.print(planned_line(counted, chat.planners.reason()), style="dim", highlight=False)
