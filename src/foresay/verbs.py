"""The verbs of the command line: their options, and what each does with the library."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
import yaml

from foresay.adapt import Recipe, adapt
from foresay.artefact import check_writable
from foresay.benchmark import BenchConfig, bench, decoders_of
from foresay.check import CheckConfig, Checker
from foresay.compress import compress
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
from foresay.decoding.session import How
from foresay.demo import Demo
from foresay.demo import run as run_demo
from foresay.info import describe
from foresay.inside import chooser_of
from foresay.metrics import tally
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt, Split, by_domain, embedded_prompts, encode, file_prompts
from foresay.terminal import ERR, OUT, AnswerStream, print_json, print_table
from foresay.view import TrainingView, bench_table, coloured, divergence_table, progress_bar

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
        stream = None if self.json or self.colour else AnswerStream(tokenizer)
        how = How(chooser=chooser_of(self.sample))
        [said] = generate(model.core, [ids], self.decode, replace(how, watch=stream.tell) if stream else how)
        counted = tally([said])
        if self.json:
            print_json({
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

    A run that was interrupted goes on, exactly, when it is started again with the same command: its state is kept in
    OUT.run until it is over.

    Examples:
      foresay train nano --data chats.jsonl --out my-adapter
      torchrun --nproc-per-node 4 -m foresay train nano --data chats.jsonl --out my-adapter --parallel ddp
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
    restart: bool = False
    """Begin anew: forget the checkpoints in OUT.run, where an interrupted run would go on."""
    json: bool = False
    """Print one JSON object when done."""
    mtp: MTPConfig = field(default_factory=MTPConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Train with a live view, save, say what came out."""
        recipe = Recipe(self.base, self.data, self.out, self.mtp, self.losses, self.train, self.overwrite, self.restart)
        prompts: Sequence[Prompt] = ()
        if self.prompts is not None:
            tokenizer = MultiTokenModel.from_base(self.base, MTPConfig(rank=1)).require_tokenizer()
            prompts = file_prompts(self.prompts, tokenizer)
        view = TrainingView(ERR, self.train.steps)
        with view.showing():
            done = adapt(recipe, view.tell, prompts)
        if not done.leads:
            return 0
        figures = {
            "folder": str(done.folder),
            "examples": done.examples,
            "steps": done.steps,
            "seconds": done.seconds,
            "loss": done.loss,
            "tokens_per_step": done.tokens_per_step,
        }
        if self.json:
            print_json(figures)
        else:
            OUT.print(f"trained {done.steps} steps in {done.seconds:.0f} s; the model lies in {done.folder}")
            OUT.print(f'try: foresay generate {done.folder} "your prompt" --stats; foresay check {done.folder}')
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressCommand:
    """Cut an adapter's LoRA to a smaller rank: cheaper steps, nearly the same drafts, the same output.

    Examples:
      foresay compress my-adapter --rank 16 --out my-adapter-16
    """

    model: Model
    """Folder of a foresay model, or nano."""
    rank: int
    """Rank to keep, smaller than the adapter's."""
    out: Path
    """Folder for the smaller model."""
    overwrite: bool = False
    """Replace what is in the folder."""
    save_dtype: DType = "float32"
    """Dtype of the saved adapter."""
    json: bool = False
    """Print one JSON object when done."""
    chosen: Chosen = field(default_factory=Chosen)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Cut, measure, save."""
        check_writable(self.out, self.overwrite)
        model = self.opening.open(self.model)
        with progress_bar(ERR) as bar:
            bar.add_task("measuring what the smaller adapter drafts", total=None)
            small = compress(model, self.rank, self.chosen.load(model, 16, "dev"))
        small.save_pretrained(self.out, self.save_dtype, self.overwrite)
        rates = small.provenance["tokens_per_step"]
        if self.json:
            print_json({"folder": str(self.out), "rank": self.rank, "tokens_per_step": rates})
        else:
            said = ", ".join(f"{domain} {rate:.2f}" for domain, rate in rates.items())
            OUT.print(f"rank {self.rank} lies in {self.out}; tokens per step now: {said}")
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
            print_json(asdict(certificate) | {"sentence": certificate.sentence})
            return 1 if certificate.bugs else 0
        if certificate.divergences:
            print_table(divergence_table(certificate))
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
            print_json(asdict(measured))
        else:
            print_table(bench_table(measured))
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
            print_json(facts)
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
    "compress": CompressCommand,
    "check": CheckCommand,
    "bench": BenchCommand,
    "info": InfoCommand,
}


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
