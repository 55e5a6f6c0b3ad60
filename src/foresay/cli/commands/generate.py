"""`foresay generate`."""

import sys
from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from foresay.cli.commands.options import GenerationRules, Model, Opening, Options, rules_for
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, OUT, print_json
from foresay.cli.views.text import AnswerStream, only_plain, planned_line, tally_line
from foresay.data.chat import encode
from foresay.decoding.config import DecodeConfig, PenaltyConfig, SampleConfig
from foresay.decoding.metrics import tally
from foresay.foundation.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateCommand:
    """Answer a prompt.

    Examples:
      foresay generate smollm2 "A robe takes 2 bolts of blue fiber and half that much white fiber. How many in total?"
      foresay generate smollm2 "Once upon a time" --raw --layout linear --masks 4 --stats
      foresay generate smollm2 "Once upon a time" --raw --temperature 0.8 --top-p 0.95 --seed 7
      echo "Write a function to reverse a list." | foresay generate smollm2 - --colour
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
    """The prompt; - reads standard input."""
    raw: bool = False
    """Go on with the prompt as plain text, without the chat template."""
    stats: bool = False
    """Say afterwards, on stderr, how many steps it took, and what `planned` chose and why."""
    colour: Annotated[bool, tyro.conf.arg(aliases=("--color",))] = False
    """Give the tokens of each step one colour."""
    json: bool = False
    """Print one JSON object."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    generation_config: GenerationRules = "auto"
    """Where nothing is asked for, `auto` chooses tokens as the base's generation_config.json says, `none` does not."""
    given: Options = field(default_factory=Given)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Stream the answer step by step."""
        model = self.opening.open_to_decode(self.model, self.decode, self.given)
        tokenizer = model.require_tokenizer()
        text = _read_stdin() if self.prompt == "-" else self.prompt
        ids = encode(tokenizer, text, self.raw)
        stream = None if self.json else AnswerStream(tokenizer, self.colour)
        rules = rules_for(model, self.generation_config, self.sample, self.penalties, self.given)
        model.check_prompts([ids], self.decode)
        planners = model.planners(self.decode.masks) if self.decode.layout == "planned" else None
        how = replace(rules.hooks(model, ids), planner=planners)
        [said] = model.decode([ids], self.decode, replace(how, watch=stream.tell) if stream else how)
        counted = tally([said])
        if self.json:
            print_json({
                "text": tokenizer.decode(said.tokens, skip_special_tokens=True),
                "tokens": said.tokens,
                "steps": [len(step.tokens) for step in said.steps],
                "ended": said.ended,
                "tokens_per_step": counted.tokens_per_step,
                "acceptance_per_position": counted.acceptance_per_position,
                "layouts": counted.layouts,
                "reason": None if planners is None else planners.reason(),
                **model.described,
            })  # fmt: skip
        elif stream is not None:
            stream.end()
        if self.colour and not self.json and OUT.color_system is None:
            why = "NO_COLOR is set" if OUT.is_terminal else "stdout is no terminal"
            ERR.print(f"--colour shows no colours, for {why}", highlight=False)
        if self.stats:
            ERR.print(f"{tally_line(counted)}; ended by {said.ended}", highlight=False)
        if planners is not None and (self.stats or (only_plain(counted) and not self.json)):
            ERR.print(planned_line(counted, planners.reason()), highlight=False)
        return 0


def _read_stdin() -> str:
    """Standard input, without the newline at its end. Raises DataError where it is not in the terminal's encoding."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not {error.encoding} at byte {error.start}; send it as UTF-8") from error
