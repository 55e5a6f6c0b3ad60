"""The verbs below `foresay data`: looking at training data, and making them."""

import inspect
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from foresay.cli.commands.options import Threaded
from foresay.cli.terminal import ERR, OUT, print_json
from foresay.cli.views.bars import progress_bar
from foresay.cli.views.text import Marks, distilled_lines, loss_text, preview_lines
from foresay.data.config import DataConfig
from foresay.data.encoder import Encoder
from foresay.data.source import Source
from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.foundation.errors import require, require_at_least
from foresay.models.base.load import BaseName, load_stop_tokens, load_tokenizer, load_vocabulary
from foresay.models.config import DTYPE, LoadConfig, LoadDType
from foresay.training.config import DistilConfig, EngineConfig, TrainConfig
from foresay.training.distillation.backend import AnswerBackend, Task
from foresay.training.distillation.distill import Distiller
from foresay.training.distillation.local import LocalEngine
from foresay.training.distillation.on_ray import RayEngine
from foresay.training.distillation.on_vllm import VllmEngine
from foresay.training.preview import limited, preview

Base = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
DEFAULTS = TrainConfig()


def _subcommand(name: str, kind: type) -> Any:
    """The verb `name`, with its examples, which tyro would leave out."""
    return tyro.conf.subcommand(name, description=inspect.getdoc(kind), prefix_name=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPreviewCommand:
    """Show what training would see: tokens that carry loss, where masks are placed, what became of every row.

    Examples:
      foresay data preview smollm2 --data chats.jsonl
      foresay data preview meta-llama/Llama-3.2-1B-Instruct --data openai/gsm8k,subset=main --examples 1
      foresay data preview smollm2 --data a.csv --columns prompt=Q response=A --rows 0 --strict --json
    """

    base: Base
    """The base whose tokenizer and chat template are used: a folder, a GGUF file, a hub id, smollm2 or nano, or a PEFT
    LoRA of your own."""
    data: tuple[str, ...]
    """Files, folders or hub ids, with settings as in `foresay train`."""
    examples: int = 2
    """Sequences of each source to show."""
    rows: int = 1000
    """Rows of each source to read; 0 reads all."""
    max_length: int = DEFAULTS.max_length
    """Longest training sequence in tokens."""
    gguf_file: str = LoadConfig().gguf_file
    """The file ending in .gguf of the hub id or folder BASE that is the base; a path that ends in .gguf needs none."""
    anchors: int = DEFAULTS.anchors
    """Anchors drawn in each sequence; 0: every token that carries loss."""
    json: bool = False
    """Print one JSON object."""
    reading: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        require(bool(self.data), "data names nothing; give files, folders or hub ids")
        require_at_least(self, 0, "examples", "rows", "anchors")
        require_at_least(self, 1, "max_length")

    def run(self) -> int:
        """Read and show."""
        guest = BaseName.find(self.base, gguf_file=self.gguf_file)
        tokenizer = load_tokenizer(guest.base, guest.adapter)
        sources = [limited(Source.parse(text, self.reading.columns), self.rows) for text in self.data]
        stops, known = load_stop_tokens(guest.base), load_vocabulary(guest.base)
        encoder = Encoder(tokenizer, self.max_length, stops, known)
        seen = preview(sources, encoder, self.anchors, self.examples, self.reading.strict)
        if self.json:
            for_json = asdict(seen)
            for shown, plain in zip(seen.shown, for_json["shown"]):
                plain["tokens"] = [tokenizer.decode([token]) for token in shown.example.ids]
            print_json(for_json)
            return 0
        marks = Marks.of(OUT.encoding)
        for shown in seen.shown:
            OUT.print(f"{shown.example.place} {shown.example.domain}".rstrip(), style="bold", highlight=False)
            OUT.print(loss_text(tokenizer, shown, marks), end="\n\n")
        for line in preview_lines(seen, marks):
            OUT.print(line, highlight=False)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataGenerateCommand(Threaded):
    """Let the base answer prompts: its own text is what an adapter learns best from.

    Answers go to files of a few hundred rows each, batch by batch: until a file is whole, its name begins with _. The
    same command, started again, makes only the answers that are missing.

    Examples:
      foresay data generate smollm2 --data questions.jsonl --out own
      foresay data generate my-adapter --data openai/gsm8k,subset=main --out own --temperature 0.8 --batch-size 8
      foresay data generate my-base --data questions.jsonl --out own --engine ray --workers 4
      foresay train smollm2 --data own --out better-adapter
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The base (a folder, a GGUF file, a hub id, smollm2 or nano), or a foresay model, which answers alike in fewer
    steps."""
    data: tuple[str, ...]
    """Files, folders or hub ids with prompts, with settings as in `foresay train`; answers in them are not read."""
    out: Path
    """Folder for the answers: JSONL files that `foresay train --data` takes."""
    base: str = ""
    """Base to use instead of the one the model names: a folder, a GGUF file, a hub id, smollm2 or nano."""
    dtype: LoadDType = DTYPE
    """Dtype of base and adapter; `auto`: the checkpoint's own, on a CPU without bfloat16 products float32."""
    json: bool = False
    """Print one JSON object."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    loading: LoadConfig = field(default_factory=LoadConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    reading: DataConfig = field(default_factory=DataConfig)

    def run(self) -> int:
        """Answer what is not yet answered."""
        require(bool(self.data), "data names nothing; give files, folders or hub ids with prompts")
        self.use_threads()
        sources = tuple(Source.parse(text, self.reading.columns) for text in self.data)
        engine = self._open()
        dtype = engine.identity()["dtype"]
        ERR.print(f"base: {self.model} in {dtype}", style="dim", highlight=False)
        distiller = Distiller(engine, sources, self.out, self.distil, self.reading)
        with progress_bar(ERR) as bar:
            task = bar.add_task("answering", total=None)
            done = distiller.run(lambda done: bar.update(task, completed=done.rows))
        if self.json:
            print_json(asdict(done) | {"dtype": dtype})
        else:
            OUT.print(
                f"{done.rows} answers lie in {done.folder}, {done.made} made now ({done.tokens} tokens); "
                f"{done.bad} bad rows, {done.too_long} prompts too long",
                highlight=False,
            )
            for line in distilled_lines(done):
                OUT.print(line, highlight=False)
        return 0

    def _open(self) -> AnswerBackend:
        size = self.engine.batch_size
        task = Task(self.model, self.dtype, self.decode, self.sample, self.loading, size, self.base)
        if self.engine.engine == "local":
            return LocalEngine.open(task)
        return VllmEngine(task) if self.engine.engine == "vllm" else RayEngine(task, self.engine.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCommand:
    """Look at training data, or let the base make them.

    Examples:
      foresay data preview smollm2 --data chats.jsonl
      foresay data generate smollm2 --data questions.jsonl --out own
    """

    verb: (
        Annotated[DataPreviewCommand, _subcommand("preview", DataPreviewCommand)]
        | Annotated[DataGenerateCommand, _subcommand("generate", DataGenerateCommand)]
    )

    def run(self) -> int:
        """Do what the verb says."""
        return self.verb.run()
