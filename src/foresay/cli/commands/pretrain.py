"""`foresay pretrain`: making a model."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from foresay.cli.commands.options import Threaded, needed
from foresay.cli.config_file import as_yaml
from foresay.cli.flags import NEEDED
from foresay.cli.terminal import ERR, OUT, print_json
from foresay.cli.views.training import TrainingView, pretraining_lines
from foresay.data.config import DataConfig
from foresay.foundation.files import check_apart
from foresay.models.config import HeadsConfig
from foresay.training.config import PretrainConfig
from foresay.training.pretrain import pretrain
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.pretrain_run import PretrainResult


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainCommand(Threaded):
    """Train a whole model, with one output head or several: from random weights, or on from where another stands.

    What comes out is an ordinary Hugging Face checkpoint (trunk and head 1) that every tool loads; heads 2 and on lie
    beside it and draft for it. Every token carries loss. A run that was interrupted goes on, exactly, when it is
    started again with the same command.

    Examples:
      foresay pretrain config.json --tokenizer bytes --data stories.jsonl --out my-model --heads 8 --replicated
      foresay pretrain my-config --data web.parquet,weight=1 code,weight=2 --out my-model --steps 20000
      torchrun --nproc-per-node 4 -m foresay pretrain my-config --data web --out my-model --heads 4 --parallel fsdp
      foresay pretrain my-model --continued --heads 1 --data contests.jsonl --out tuned      # heads 2 and on dropped
    """

    design: Annotated[str, NEEDED, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")] = ""
    """A folder with a Hugging Face config.json and a tokenizer, or such a JSON file, whose layers are those of trunk
    and heads together; with --continued a model, whose layers stay."""
    data: Annotated[tuple[str, ...], NEEDED] = ()
    """What to train on: files (JSON, JSONL, CSV, Parquet, text), folders of them, or hub ids, holding text or chats,
    with settings as for `foresay train`."""
    out: Annotated[Path | None, NEEDED] = None
    """Folder for the model."""
    tokenizer: str = ""
    """Tokenizer: a folder, a hub id, or bytes (256 bytes and three special tokens); without it, the one beside
    CONFIG."""
    config: Path | None = None
    """YAML file of settings (the names below, with _ or -); flags given beside it win."""
    overwrite: bool = False
    """Replace what is in the folder."""
    restart: bool = False
    """Begin anew: forget the checkpoints in OUT.run, where an interrupted run would go on."""
    print_config: bool = False
    """Print all settings as YAML for --config, and train nothing: neither data nor a folder is needed."""
    json: bool = False
    """Print one JSON object."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    train: PretrainConfig = field(default_factory=PretrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)

    def run(self) -> int:
        """Train with a live view, save, say what came out."""
        if self.print_config:
            print(as_yaml((self.heads, self.train, self.reading)), end="")
            return 0
        out = needed(self, "pretrain")
        self.use_threads()
        check_apart(out, filter(None, (self.config,)))
        recipe = PretrainRecipe(
            self.design,
            self.data,
            out,
            self.tokenizer,
            self.heads,
            self.train,
            self.reading,
            overwrite=self.overwrite,
            restart=self.restart,
        )
        view = TrainingView(ERR, self.train.steps, pretraining_lines)
        with view.showing():
            done = pretrain(recipe, view.tell, told=lambda sentence: ERR.print(sentence, highlight=False))
        if done.leads:
            self._say(done)
        return 0

    def _say(self, done: PretrainResult) -> None:
        last = done.last.progress
        if self.json:
            print_json({
                "folder": str(done.folder),
                "parameters": done.parameters,
                "tokens": done.tokens,
                "dtype": done.dtype,
                "steps": last.step,
                "seconds": last.seconds,
                "losses": asdict(last.losses),
                "tokens_per_second": done.last.tokens_per_second,
                "bits_per_byte": done.last.bits_per_byte,
                "tokens_per_step": done.tokens_per_step,
            })  # fmt: skip
            return
        OUT.print(f"trained {done.parameters:,} parameters for {last.step} steps in {last.seconds:.0f} s")
        for name, figures in (("bits per byte", done.last.bits_per_byte), ("tokens per step", done.tokens_per_step)):
            if figures:
                OUT.print(f"{name}: " + ", ".join(f"{domain} {value:.2f}" for domain, value in figures.items()))
        OUT.print(
            f'the model lies in {done.folder}; try: foresay generate {quote(str(done.folder))} "Once upon a time" --raw'
        )
