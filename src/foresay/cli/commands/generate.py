"""`foresay generate`."""

import sys
from dataclasses import dataclass, field, replace

import tyro

from foresay.cli.commands.options import Model, Opening
from foresay.cli.terminal import ERR, OUT, AnswerStream, print_json
from foresay.cli.views.text import coloured, planned_line, tally_line
from foresay.data.chat import encode
from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import tally
from foresay.decoding.sampling.chooser import chooser_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateCommand:
    """Answer a prompt.

    Examples:
      foresay generate nano "A robe takes 2 bolts of blue fiber and half that much white fiber. How many in total?"
      foresay generate nano "Once upon a time" --raw --layout linear --masks 4 --stats
      foresay generate nano "Once upon a time" --raw --temperature 0.8 --top-p 0.95 --seed 7
      echo "Write a function to reverse a list." | foresay generate nano - --colour
    """

    model: Model
    """Folder of a foresay model, or nano."""
    prompt: tyro.conf.Positional[str]
    """The prompt; - reads standard input."""
    raw: bool = False
    """Go on with the prompt as plain text, without the chat template."""
    stats: bool = False
    """Say afterwards, on stderr, how many steps it took, and what `planned` chose and why."""
    colour: bool = False
    """Give the tokens of each step one colour."""
    json: bool = False
    """Print one JSON object instead of the text."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Stream the answer step by step."""
        model = self.opening.open(self.model)
        tokenizer = model.require_tokenizer()
        text = sys.stdin.read().removesuffix("\n") if self.prompt == "-" else self.prompt
        ids = encode(tokenizer, text, self.raw)
        stream = None if self.json or self.colour else AnswerStream(tokenizer)
        model.check_prompts([ids], self.decode)
        planners = model.planners(self.decode.masks) if self.decode.layout == "planned" else None
        how = GenerationHooks(chooser=chooser_of(self.sample), planner=planners)
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
                **model.described,
            })  # fmt: skip
        elif self.colour:
            OUT.print(coloured(tokenizer, said.steps))
        else:
            print()
        if self.stats:
            ERR.print(f"{tally_line(counted)}; ended by {said.ended}", highlight=False)
            if planners is not None:
                ERR.print(planned_line(counted, planners.reason()), highlight=False)
        return 0
