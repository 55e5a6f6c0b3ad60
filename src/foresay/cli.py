"""The command line. Results go to stdout, chatter to stderr; exit 0 done, 1 a check failed, 2 bad use."""

import inspect
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Union

import torch
import tyro
import yaml
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from foresay.adapt import Recipe, adapt
from foresay.benchmark import BenchConfig, bench, decoders_of
from foresay.check import CheckConfig, Checker
from foresay.config import (
    DecodeConfig,
    DType,
    LossConfig,
    MTPConfig,
    SampleConfig,
    TrainConfig,
    require,
    require_at_least,
)
from foresay.decoding.generate import generate
from foresay.decoding.session import How, Step
from foresay.demo import Demo
from foresay.demo import run as run_demo
from foresay.errors import ConfigError, ForesayError
from foresay.info import describe
from foresay.inside import chooser_of
from foresay.metrics import tally
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt, Split, by_domain, embedded_prompts, encode, file_prompts
from foresay.view import TrainingView, bench_table, coloured, divergence_table, progress_bar

ABOUT = "Make a pretrained language model say several tokens at once, with the same output."
PIPE_WIDTH = 160


class Terminal(Console):
    """A console that shows text as it is, and lets `main` deal with a reader that goes away."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, **settings)

    def on_broken_pipe(self) -> None:
        """Pass it on: rich itself would exit with status 1, which means here that a check failed."""
        raise BrokenPipeError


OUT, ERR = Terminal(soft_wrap=True), Terminal(stderr=True, soft_wrap=True)
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a model is opened."""

    base: str = ""
    """Base to use instead of the one the model names: a folder, a hub id or nano."""
    dtype: DType = "float32"
    """Dtype of base and adapter."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""

    def open(self, folder: str, dtype: DType | None = None) -> MultiTokenModel:
        """The model in `folder`."""
        require(self.threads >= 0, f"threads is {self.threads}; give 1 or more, or 0 to leave it to torch")
        if self.threads:
            torch.set_num_threads(self.threads)
        return MultiTokenModel.from_pretrained(folder, self.base or None, dtype=dtype or self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which prompts are decoded."""

    prompts: Path | None = None
    """File with a prompt a row (messages, prompt or text); without it, the embedded held-out prompts."""
    per_domain: int = 0
    """Embedded prompts of each domain; 0: a few, or many with --full."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "per_domain")

    def load(self, model: MultiTokenModel, per_domain: int, split: Split) -> list[Prompt]:
        """The prompts, at most `per_domain` of each embedded domain unless set."""
        tokenizer = model.require_tokenizer()
        if self.prompts is not None:
            return file_prompts(self.prompts, tokenizer)
        return embedded_prompts(tokenizer, split, self.per_domain or per_domain)


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
    """Say afterwards, on stderr, how many steps it took."""
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
        stream = None if self.json or self.colour else _Stream(tokenizer)
        how = How(chooser=chooser_of(self.sample))
        [said] = generate(model.core, [ids], self.decode, replace(how, watch=stream.tell) if stream else how)
        counted = tally([said])
        if self.json:
            _print_json({
                "text": tokenizer.decode(said.tokens, skip_special_tokens=True),
                "tokens": said.tokens,
                "steps": [len(step.tokens) for step in said.steps],
                "ended": said.ended,
                "tokens_per_step": counted.tokens_per_step,
                "acceptance_per_position": counted.acceptance_per_position,
            })  # fmt: skip
        elif self.colour:
            OUT.print(coloured(tokenizer, said.steps))
        else:
            print()
        if self.stats:
            ERR.print(
                f"{counted.tokens} tokens in {counted.steps} steps: {counted.tokens_per_step:.2f} tokens per step; "
                f"{counted.accepted} of {counted.drafted} drafts accepted; ended by {said.ended}"
            )
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCommand:
    """Train a multi-token adapter on a frozen base.

    Examples:
      foresay train nano --data chats.jsonl --out my-adapter
      foresay train meta-llama/Llama-3.2-1B --data a.jsonl b.jsonl --out my-adapter --dtype bfloat16
      foresay train nano --config recipes/paper.yaml --data chats.jsonl --out paper --steps 457
    """

    base: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
    """The base: a folder, a hub id or nano."""
    data: tuple[Path, ...]
    """Files to train on (JSON, JSONL or text): chat messages, prompt and response, or text."""
    out: Path
    """Folder for the trained model."""
    config: Path | None = None
    """YAML file of settings (the names below, with _ or -); flags given beside it win."""
    prompts: Path | None = None
    """File with held-out prompts to decode while training; without it, examples are held out of the data."""
    overwrite: bool = False
    """Replace what is in the folder."""
    json: bool = False
    """Print one JSON object when done."""
    mtp: MTPConfig = field(default_factory=MTPConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Train with a live view, save, say what came out."""
        recipe = Recipe(self.base, self.data, self.out, self.mtp, self.losses, self.train, self.overwrite)
        prompts: Sequence[Prompt] = ()
        if self.prompts is not None:
            tokenizer = MultiTokenModel.from_base(self.base, MTPConfig(rank=1)).require_tokenizer()
            prompts = file_prompts(self.prompts, tokenizer)
        view = TrainingView(ERR, self.train.steps)
        with view.showing():
            done = adapt(recipe, view.tell, prompts)
        figures = {
            "folder": str(done.folder),
            "examples": done.examples,
            "steps": done.steps,
            "seconds": done.seconds,
            "loss": done.loss,
            "tokens_per_step": done.tokens_per_step,
        }
        if self.json:
            _print_json(figures)
        else:
            OUT.print(f"trained {done.steps} steps in {done.seconds:.0f} s; the model lies in {done.folder}")
            OUT.print(f'try: foresay generate {done.folder} "your prompt" --stats; foresay check {done.folder}')
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCommand:
    """Check that accelerated output is the base's own, token for token.

    Every answer is compared with transformers' greedy generate. A difference is a tie when the two tokens are the
    base's best two, their margin is within rounding, and the whole prompt repeated in float32 agrees; else it is a bug.

    Examples:
      foresay check nano
      foresay check nano --full --dtype bfloat16
      foresay check my-adapter --prompts prompts.jsonl --json > certificate.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    full: bool = False
    """Check 200 prompts of 128 tokens instead of a few."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    check: CheckConfig = field(default_factory=CheckConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """0 when lossless, 1 on any bug."""
        model = self.opening.open(self.model)
        config = replace(self.check, max_new_tokens=128) if self.full else self.check
        prompts = self.chosen.load(model, 50 if self.full else 8, "all")
        with progress_bar(ERR) as bar:
            task = bar.add_task("checking", total=len(prompts) * (1 + len(config.layouts)))
            checker = Checker(
                model, config, lambda dtype: self.opening.open(self.model, dtype), lambda done: bar.advance(task)
            )
            certificate = checker.run(prompts)
        if self.json:
            _print_json(asdict(certificate) | {"sentence": certificate.sentence})
            return 1 if certificate.bugs else 0
        if certificate.divergences:
            _print_table(divergence_table(certificate))
        rates = ", ".join(f"{layout} {value:.2f}" for layout, value in certificate.tokens_per_step.items())
        OUT.print(certificate.sentence)
        OUT.print(
            f"{certificate.prompts} prompts, {certificate.tokens} tokens in {certificate.dtype}; per step: {rates}"
        )
        return 1 if certificate.bugs else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCommand:
    """Measure speed and tokens per step beside transformers and plain decoding, in one interleaved run.

    Examples:
      foresay bench nano
      foresay bench nano --layouts quadratic --masks 1 2 4 8 --dtype bfloat16
      foresay bench my-adapter --prompts prompts.jsonl --json > bench.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    full: bool = False
    """Measure 40 prompts a domain of 128 tokens instead of a few."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    bench: BenchConfig = field(default_factory=BenchConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Measure and print."""
        model = self.opening.open(self.model)
        config = replace(self.bench, max_new_tokens=128) if self.full else self.bench
        prompts = self.chosen.load(model, 40 if self.full else 3, "test")
        decoders = decoders_of(model, config)
        with progress_bar(ERR) as bar:
            task = bar.add_task("measuring", total=len(decoders) * (1 + config.repeats * len(by_domain(prompts))))
            measured = bench(model, prompts, config, lambda name: bar.update(task, advance=1, description=name))
        if self.json:
            _print_json(asdict(measured))
        else:
            _print_table(bench_table(measured))
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoCommand:
    """Say what a model is: base, adapter, fingerprints, how it was trained.

    Examples:
      foresay info nano
      foresay info my-adapter --json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Print the facts."""
        facts = asdict(describe(self.opening.open(self.model), self.model))
        if self.json:
            _print_json(facts)
        else:
            OUT.print(yaml.safe_dump(_plain(facts), sort_keys=False, allow_unicode=True).rstrip(), highlight=False)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCommand:
    """See it all on the embedded model: train an adapter, decode faster with the same output, in four minutes.

    Examples:
      foresay demo
      foresay demo --seconds 30 --out /tmp/my-adapter
    """

    demo: Demo = field(default_factory=Demo)

    def run(self) -> int:
        """Train, decode, show."""
        return run_demo(self.demo, OUT, ERR)


VERBS: dict[str, type] = {
    "demo": DemoCommand,
    "train": TrainCommand,
    "generate": GenerateCommand,
    "check": CheckCommand,
    "bench": BenchCommand,
    "info": InfoCommand,
}


def command_for(verb: str) -> Any:
    """The type that tyro parses: one of the verbs. The help of `verb` shows its examples, the others a summary."""
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, description=_about(kind, whole=name == verb))]  # type: ignore[valid-type]
        for name, kind in VERBS.items()
    ]
    return Annotated[Union[tuple(kinds)], tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes]  # noqa: UP007


def _about(kind: type, whole: bool) -> str:
    text = inspect.getdoc(kind) or ""
    return text if whole else text.split("\n\n")[0].replace("\n", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is returned, and raised by the console script."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.set_verbosity_error()
    try:
        kind = command_for(arguments[0] if arguments else "")
        command = tyro.cli(kind, prog="foresay", description=ABOUT, args=with_config(arguments))
        return int(command.run())
    except ForesayError as error:
        ERR.print(f"foresay: {error}", style="red", highlight=False)
        return 2
    except KeyboardInterrupt:
        ERR.print("foresay: interrupted; nothing half written was left behind")
        return 130
    except BrokenPipeError:
        # The reader went away: not our failure, but Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def with_config(arguments: list[str]) -> list[str]:
    """Replace `--config FILE` by the flags that the YAML file stands for; flags given beside it win.

    Raises ConfigError for a missing or broken file and for unknown keys.
    """
    arguments = [word for argument in arguments for word in _split_config(argument)]
    if "--config" not in arguments:
        return arguments
    place = arguments.index("--config")
    if arguments[0] != "train" or place + 1 == len(arguments):
        raise ConfigError("--config goes with `foresay train` and takes a YAML file")
    path = Path(arguments[place + 1])
    given = arguments[1:place] + arguments[place + 2 :]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"config {path} cannot be read ({why}); give a YAML file of settings") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} holds no settings; write one `name: value` a line")
    defaults = {entry.name: entry.default for kind in (MTPConfig, LossConfig, TrainConfig) for entry in fields(kind)}
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = sorted(settings.keys() - defaults.keys())
    if unknown:
        raise ConfigError(f"config {path} has unknown key {unknown[0]!r}; known are {', '.join(sorted(defaults))}")
    named = {argument.split("=")[0].lstrip("-").replace("-", "_") for argument in given if argument.startswith("--")}
    asked = {name: value for name, value in settings.items() if not named & {name, f"no_{name}"}}
    return ["train", *given, *(word for name, value in asked.items() for word in _flag(name, value, defaults[name]))]


def _split_config(argument: str) -> list[str]:
    """`--config=FILE` as two words."""
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def _flag(name: str, value: Any, default: Any) -> list[str]:
    flag = name.replace("_", "-")
    if not isinstance(default, bool):
        return [f"--{flag}", str(value)]
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; give true or false")
    # A switch has a flag for the value that is not its default, and none for its default.
    return [] if value == default else [f"--{flag}" if value else f"--no-{flag}"]


class _Stream:
    """Writes an answer to stdout as it grows, whole characters at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._shown = tokenizer, ""
        self._said: list[int] = []

    def tell(self, index: int, step: Step) -> None:
        """Write what a step added."""
        self._said.extend(step.tokens)
        whole = self._tokenizer.decode(self._said, skip_special_tokens=True)
        if not whole.endswith("�"):
            print(whole[len(self._shown) :], end="", flush=True)
            self._shown = whole


def _print_table(table: Table) -> None:
    """Print a table whole, in a pipe too."""
    (OUT if OUT.is_terminal else Terminal(width=PIPE_WIDTH)).print(table)


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def entry() -> None:
    """The console script."""
    sys.exit(main())
