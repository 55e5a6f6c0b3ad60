"""`foresay train`: teach an adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import tyro

from foresay.cli.commands.options import Options, Threaded, needed, read_prompts
from foresay.cli.config_file import as_yaml
from foresay.cli.flags import NEEDED
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, OUT, print_json
from foresay.cli.views.training import AdapterLines, TrainingView, rates
from foresay.data.config import DataConfig
from foresay.data.prompts import Prompt
from foresay.foundation.errors import ConfigError
from foresay.foundation.files import check_apart
from foresay.models.base.load import BaseName, load_tokenizer
from foresay.models.config import HeadsConfig, LoadConfig, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.runs.adapter_run import TrainUpdate
from foresay.training.train import SETTINGS_OF_MASKS, TrainResult, train

POINTS = 500
"""Most steps whose loss is printed."""


def thinned(curve: Mapping[int, float]) -> list[dict[str, float]]:
    """Loss by step, at most `POINTS` of them, evenly; the last one is among them."""
    steps, every = sorted(curve, reverse=True), max(1, -(-len(curve) // POINTS))
    return [{"step": step, "total": curve[step]} for step in reversed(steps[::every])]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCommand(Threaded):
    """Train a multi-token adapter on a frozen base.

    A run that was interrupted goes on, exactly, when it is started again with the same command: its state is kept in
    OUT.run until it is over.

    With --eval-every held-out prompts are decoded for real on the way. What is printed is what `foresay bench OUT
    --prompts FILE --layouts quadratic --max-new-tokens 64` and `foresay check OUT --prompts FILE` print.

    Examples:
      foresay train smollm2 --data chats.jsonl --out my-adapter
      torchrun --nproc-per-node 4 -m foresay train smollm2 --data chats.jsonl --out my-adapter --parallel ddp
      foresay train meta-llama/Llama-3.2-1B --data a.jsonl b.jsonl --out my-adapter --dtype bfloat16
      foresay train smollm2 --data chats.jsonl,weight=3 web.parquet,text=body,weight=1 --out my-adapter
      foresay train my-peft-lora --data chats.jsonl --out my-adapter --quantize nf4
      foresay train smollm2 --family heads --heads 4 --data chats.jsonl --out my-heads
      foresay train my-fine-tune --init-from my-adapter --data chats.jsonl --out my-new-adapter --steps 200
      foresay train smollm2 --config recipes/paper.yaml --data chats.jsonl --out paper --steps 457
      foresay train smollm2 --data chats.jsonl --out best --prompts dev.jsonl --eval-every 100 --keep best
      foresay train --rank 32 --print-config > mine.yaml
    """

    base: Annotated[str, NEEDED, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")] = ""
    """The base: a folder, a GGUF file, a hub id, smollm2 or nano; or a PEFT LoRA of your own, which names its base."""
    data: Annotated[tuple[str, ...], NEEDED] = ()
    """What to train on: files (JSON, JSONL, CSV, Parquet, text), folders of them, or hub ids, holding chat messages,
    prompt and response, or text. Settings follow a name: chats.jsonl,weight=2 openai/gsm8k,subset=main,rows=5000
    (weight, rows, subset, split; prompt=COLUMN, response=COLUMN, messages=COLUMN, text=COLUMN)."""
    out: Annotated[Path | None, NEEDED] = None
    """Folder for the trained model."""
    config: Path | None = None
    """YAML file of settings (the names below, with _ or -); flags given beside it win."""
    init_from: str = ""
    """A saved adapter (folder, hub id, smollm2 or nano) to begin with instead of random weights, whose settings are
    then the defaults; its base may be the model that BASE is a fine-tune of, and --num-masks another number."""
    prompts: Path | None = None
    """File with held-out prompts to decode while training; without it, examples are held out of the data."""
    overwrite: bool = False
    """Replace what is in the folder."""
    restart: bool = False
    """Begin anew: forget the checkpoints in OUT.run, where an interrupted run would go on."""
    print_config: bool = False
    """Print all settings as YAML for --config, and train nothing: neither data nor a folder is needed."""
    json: bool = False
    """Print one JSON object."""
    family: Literal["masks", "heads"] = "masks"
    """What is trained: an adapter that drafts with `masks`, or further output `heads` (their number: --heads)."""
    mtp: MTPConfig = field(default_factory=MTPConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)
    loading: LoadConfig = field(default_factory=LoadConfig)
    given: Options = field(default_factory=Given)

    def run(self) -> int:
        """Train with a live view, save, say what came out."""
        own = self._own()
        if self.print_config:
            print(as_yaml((own, self.losses, self.train, self.reading, self.loading)), end="")
            return 0
        out = needed(self, "train")
        self.use_threads()
        check_apart(out, filter(None, (self.config, self.prompts)))
        recipe = Recipe(
            self.base,
            self.data,
            out,
            own,
            self.losses,
            self.train,
            self.reading,
            self.loading,
            overwrite=self.overwrite,
            restart=self.restart,
            init_from=self.init_from,
        )
        prompts: Sequence[Prompt] = ()
        if self.prompts is not None:
            guest = BaseName.find(self.base, self.loading.base_adapter, self.loading.gguf_file)
            prompts = read_prompts(self.prompts, load_tokenizer(guest.base, guest.adapter))
        view, curve = TrainingView(ERR, self.train.steps, AdapterLines()), dict[int, float]()

        def watch(news: TrainUpdate) -> None:
            curve[news.progress.step] = news.progress.losses.total
            view.tell(news)

        with view.showing():
            done = train(recipe, watch, prompts, told=lambda said: ERR.print(said, highlight=False))
        if done.leads:
            self._tell(done, curve)
        return 0

    def _own(self) -> MTPConfig | HeadsConfig:
        """Settings of the family that is trained. Raises ConfigError where one of the other was set."""
        own, other = (self.mtp, self.heads) if self.family == "masks" else (self.heads, self.mtp)
        # A file may hold all settings of training at their defaults; what stands on the command line was meant.
        away = [entry.name for entry in fields(other) if getattr(other, entry.name) != entry.default]
        foreign = [entry.name for entry in fields(other)]
        away += self.given.among(foreign if self.family == "masks" else (*foreign, *SETTINGS_OF_MASKS))
        if away:
            [suits] = {"masks", "heads"} - {self.family}
            values = asdict(self.train) | asdict(self.losses) | asdict(other)
            raise ConfigError(
                f"{away[0]} is {values[away[0]]!r} and the family is {self.family}, which has no such setting; "
                f"leave it out, or train `--family {suits}`"
            )
        return own

    def _tell(self, done: TrainResult, curve: Mapping[int, float]) -> None:
        """What came out, on stdout."""
        found = done.measured
        if self.json:
            print_json(
                {
                    "folder": str(done.folder),
                    **done.model.described,
                    "examples": done.examples,
                    "steps": done.steps,
                    "seconds": done.seconds,
                    "loss": done.loss,
                    "losses": thinned(curve),
                    "kept_step": found.step if found else done.steps,
                    "tokens_per_step": done.tokens_per_step,
                    "mean_tokens_per_step": found and found.mean,
                    "acceptance": [asdict(entry) for entry in found.acceptance] if found else [],
                    "decodes": [asdict(decode) | {"mean": decode.mean} for decode in done.decodes],
                }
            )
            return
        OUT.print(f"trained {done.steps} steps in {done.seconds:.0f} s; the model lies in {done.folder}")
        if found:
            OUT.print(f"it was taken at step {found.step}; tokens per step: {rates(found)}", highlight=False)
        folder = quote(str(done.folder))
        OUT.print(f'try: foresay generate {folder} "your prompt" --stats; foresay check {folder}')
