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
from foresay.benchmark import Bench, bench
from foresay.check import Certificate, CheckConfig, Checker, check_sampling
from foresay.compress import compress
from foresay.config import (
    DataConfig,
    DecodeConfig,
    DType,
    LossConfig,
    MTPConfig,
    SampleConfig,
    TrainConfig,
    require,
    require_at_least,
)
from foresay.data_verbs import DataCommand
from foresay.decoding.calibrate import SECONDS, calibrate, curve_for, forecast, planner_for, rounded
from foresay.decoding.generate import check_prompts, generate
from foresay.decoding.planner import Planner, prior
from foresay.decoding.session import How
from foresay.demo import Demo
from foresay.demo import run as run_demo
from foresay.info import describe
from foresay.inside import chooser_of
from foresay.metrics import tally
from foresay.model import MultiTokenModel
from foresay.plot import draw_costs, draw_speedups, require_matplotlib
from foresay.prompts import Prompt, Split, embedded_prompts, encode, file_prompts
from foresay.provenance import provenance
from foresay.stand import BenchConfig
from foresay.terminal import ERR, OUT, AnswerStream, print_json, print_table
from foresay.trial import SamplingReport
from foresay.view import (
    TrainingView,
    bench_view,
    bench_watching,
    calibration_watch,
    coloured,
    curve_table,
    divergence_table,
    progress_bar,
)

FEW = 2
"""Prompts of each embedded domain that `bench` decodes, or as many as its largest batch holds."""

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
        how = How(chooser=chooser_of(self.sample), planner=self._planner(model, ids))
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

    def _planner(self, model: MultiTokenModel, ids: Sequence[int]) -> Planner | None:
        """What chooses layouts, with a bar where it has to measure first."""
        if self.decode.layout != "planned":
            return None
        check_prompts(model.core, [ids], self.decode)
        with progress_bar(ERR) as bar:
            return planner_for(model.core, 1, len(ids), self.decode.masks, calibration_watch(bar))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCommand:
    """Train a multi-token adapter on a frozen base.

    A run that was interrupted goes on, exactly, when it is started again with the same command: its state is kept in
    OUT.run until it is over.

    Examples:
      foresay train nano --data chats.jsonl --out my-adapter
      torchrun --nproc-per-node 4 -m foresay train nano --data chats.jsonl --out my-adapter --parallel ddp
      foresay train meta-llama/Llama-3.2-1B --data a.jsonl b.jsonl --out my-adapter --dtype bfloat16
      foresay train nano --data chats.jsonl,weight=3 web.parquet,text=body,weight=1 --out my-adapter
      foresay train nano --config recipes/paper.yaml --data chats.jsonl --out paper --steps 457
    """

    base: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
    """The base: a folder, a hub id or nano."""
    data: tuple[str, ...]
    """What to train on: files (JSON, JSONL, CSV, Parquet, text), folders of them, or hub ids, holding chat messages,
    prompt and response, or text. Settings follow a name: chats.jsonl,weight=2 openai/gsm8k,subset=main,rows=5000
    (weight, rows, subset, split; prompt=COLUMN, response=COLUMN, messages=COLUMN, text=COLUMN)."""
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
    reading: DataConfig = field(default_factory=DataConfig)

    def run(self) -> int:
        """Train with a live view, save, say what came out."""
        recipe = Recipe(
            self.base,
            self.data,
            self.out,
            self.mtp,
            self.losses,
            self.train,
            self.reading,
            overwrite=self.overwrite,
            restart=self.restart,
        )
        prompts: Sequence[Prompt] = ()
        if self.prompts is not None:
            tokenizer = MultiTokenModel.from_base(self.base, MTPConfig(rank=1)).require_tokenizer()
            prompts = file_prompts(self.prompts, tokenizer)
        view = TrainingView(ERR, self.train.steps)
        with view.showing():
            done = adapt(recipe, view.tell, prompts, told=lambda report: ERR.print(report.sentence, highlight=False))
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
    """Check that accelerated output is the base's own: greedy token for token, sampled by its distribution.

    Every answer is compared with transformers' greedy generate. A difference is a tie when the two tokens are the
    base's best two, their margin is within rounding, and the whole prompt repeated in float32 agrees; else it is a bug.

    The shortest prompt is then answered many times, sampled by transformers and in each layout, and a permutation test
    compares the joint distribution of tokens 2 to 6. A corrected p-value below 0.01 is a fault: one sound model in a
    hundred has it by chance, and hardly again with another --seed. A verifier broken on purpose must be caught too,
    or the test says that it has no power. With --temperature 0 nothing is sampled.

    Examples:
      foresay check nano
      foresay check nano --full --dtype bfloat16
      foresay check my-adapter --prompts prompts.jsonl --json > certificate.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    full: bool = False
    """Check 200 prompts of 128 tokens instead of a few, and sampling to a shift of 0.05."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    check: CheckConfig = field(default_factory=CheckConfig)
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(temperature=1.0))
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """0 when lossless, 1 on any bug or bias."""
        model = self.opening.open(self.model)
        config = replace(self.check, max_new_tokens=128, shift=0.05) if self.full else self.check
        prompts = self.chosen.load(model, 50 if self.full else 8, "all")
        with progress_bar(ERR) as bar:
            greedy = bar.add_task("checking", total=len(prompts) * (1 + len(config.layouts)))
            sampled = bar.add_task("sampling", total=2 + len(config.layouts))
            checker = Checker(
                model, config, lambda dtype: self.opening.open(self.model, dtype), lambda done: bar.advance(greedy)
            )
            certificate = checker.run(prompts)
            sampling = check_sampling(model, prompts, self.sample, config, lambda done: bar.advance(sampled))
        if self.json:
            found = sampling and asdict(sampling) | {"has_power": sampling.has_power, "sentence": sampling.sentence}
            print_json(asdict(certificate) | {"sentence": certificate.sentence, "sampling": found})
        else:
            self._tell(certificate, sampling)
        return 1 if certificate.bugs or (sampling and sampling.biased) else 0

    def _tell(self, certificate: Certificate, sampling: SamplingReport | None) -> None:
        if certificate.divergences:
            print_table(divergence_table(certificate))
        rates = ", ".join(f"{layout} {value:.2f}" for layout, value in certificate.tokens_per_step.items())
        OUT.print(certificate.sentence)
        OUT.print(
            f"{certificate.prompts} prompts, {certificate.tokens} tokens in {certificate.dtype}; per step: {rates}"
        )
        if sampling is not None:
            OUT.print(sampling.sentence)
            OUT.print(
                f"{sampling.samples} answers a layout, {sampling.reference_samples} of transformers: a total variation "
                f"of {sampling.shift:.2f} between {sampling.classes} classes is found with {sampling.power:.0%} chance"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCommand:
    """Measure speed and tokens per step beside transformers and plain decoding, in one interleaved run.

    Examples:
      foresay bench nano
      foresay bench nano --layouts quadratic --masks 1 2 4 8 --dtype bfloat16
      foresay bench nano --batch-sizes 1 2 4 8 16 --prompt-tokens 0 512 --plot pictures
      foresay bench my-adapter --prompts prompts.jsonl --json > bench.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    full: bool = False
    """Measure 40 prompts a domain of 128 tokens instead of a few."""
    plot: Path | None = None
    """Folder for two pictures: speed-ups by batch size and layout, and what a step costs (needs matplotlib)."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    bench: BenchConfig = field(default_factory=BenchConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Measure, print and draw."""
        if self.plot is not None:
            require_matplotlib()
        model = self.opening.open(self.model)
        config = replace(self.bench, max_new_tokens=128) if self.full else self.bench
        prompts = self.chosen.load(model, 40 if self.full else max(FEW, *config.batch_sizes), "test")
        with progress_bar(ERR) as bar:
            measured = bench(model, prompts, config, bench_watching(bar))
        if self.json:
            print_json(asdict(measured))
        else:
            print_table(bench_view(measured))
        if self.plot is not None:
            self._draw(model, measured, self.plot)
        return 0

    def _draw(self, model: MultiTokenModel, measured: Bench, folder: Path) -> None:
        cells = dict.fromkeys(
            rounded(model.core, result.batch_size, round(result.prompt_tokens)) for result in measured.results
        )
        with progress_bar(ERR) as bar:
            curves = [curve_for(model.core, *cell, calibration_watch(bar)) for cell in cells]
        ERR.print(f"drawn: {draw_speedups(measured, folder)}, {draw_costs(curves, folder)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateCommand:
    """Measure anew what a step costs here: what `--layout planned` chooses by.

    Batch sizes and context lengths are rounded up to those that are kept: powers of two; 128, 512, 2048, 8192 tokens.

    Examples:
      foresay calibrate nano
      foresay calibrate my-adapter --batch-sizes 1 8 --contexts 512 2048 --dtype bfloat16
      foresay calibrate my-adapter --json > costs.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    batch_sizes: tuple[int, ...] = (1,)
    """Prompts decoded together."""
    contexts: tuple[int, ...] = (128,)
    """Tokens cached before a step."""
    seconds: float = SECONDS
    """Most time for each batch size and context length."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def __post_init__(self) -> None:
        require(self.seconds > 0, f"seconds is {self.seconds}; give a positive time")
        for name in ("batch_sizes", "contexts"):
            values = getattr(self, name)
            require(min(values, default=0) >= 1, f"{name} is {values}; give one or more numbers from 1 up")

    def run(self) -> int:
        """Measure, keep, print."""
        core = self.opening.open(self.model).core
        cells = dict.fromkeys(rounded(core, size, length) for size in self.batch_sizes for length in self.contexts)
        with progress_bar(ERR) as bar:
            curves = [calibrate(core, *cell, self.seconds, calibration_watch(bar)) for cell in cells]
        known = prior(core.acceptance, core.config.num_masks)
        if self.json:
            content = [
                {"batch_size": curve.batch_size, "context_tokens": curve.context_tokens}
                | {"entries": [asdict(found) for found in forecast(core, curve)]}
                for curve in curves
            ]
            print_json({"curves": content, "acceptance": known, "provenance": provenance(model=self.model)})
            return 0
        for curve in curves:
            print_table(curve_table(curve, forecast(core, curve)))
            OUT.print()
        shares = ", ".join(f"{share:.0%}" for share in known)
        told = "as training left it" if core.acceptance else "assumed, for training left none"
        OUT.print(f"< is what planned begins with.\nDrafts kept, by position, {told}: {shares}.", highlight=False)
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
    "data": DataCommand,
    "generate": GenerateCommand,
    "compress": CompressCommand,
    "check": CheckCommand,
    "bench": BenchCommand,
    "calibrate": CalibrateCommand,
    "info": InfoCommand,
}


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
