"""What a run trains, on what, and where to."""

from dataclasses import dataclass, field
from pathlib import Path

from foresay.data.config import DataConfig
from foresay.data.corpus import Part, read
from foresay.data.encoder import Encoder
from foresay.data.source import Source
from foresay.foundation.files import check_output, check_outside
from foresay.models.config import Family, HeadsConfig, LoadConfig, MTPConfig
from foresay.training.config import LossConfig, PretrainConfig, TrainConfig
from foresay.training.loop.checkpoint import run_folder


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """What to make, from what, where to."""

    config: str
    """A folder with a Hugging Face config.json and a tokenizer, or such a JSON file; continued, the name of a model."""
    data: tuple[str | Path, ...]
    """Files, folders or hub ids, with settings as `Source.parse` reads them."""
    out: Path
    tokenizer: str = ""
    """A folder, a hub id or `bytes`; empty: beside the config."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    train: PretrainConfig = field(default_factory=PretrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)
    overwrite: bool = False
    restart: bool = False
    """Forget the checkpoints that an interrupted run left."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to train, on what, where to."""

    base: str
    data: tuple[str | Path, ...]
    """Files, folders or hub ids, with settings as `Source.parse` reads them."""
    out: Path
    mtp: Family = field(default_factory=MTPConfig)
    """What is trained; with `init_from`, the settings of that adapter, but `num_masks` and `train_masks`."""
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)
    loading: LoadConfig = field(default_factory=LoadConfig)
    overwrite: bool = False
    restart: bool = False
    """Forget the checkpoints that an interrupted run left."""
    init_from: str = ""
    """A saved adapter (folder, hub id, `smollm2`, `nano`) whose weights the training begins with; empty: fresh ones."""


def sources_of(recipe: Recipe | PretrainRecipe) -> list[Source]:
    """The sources of a recipe's data, in its order. Raises ConfigError for a setting that no source has."""
    return [Source.parse(str(text), recipe.reading.columns) for text in recipe.data]


def read_sources(recipe: Recipe | PretrainRecipe, encoder: Encoder) -> list[Part]:
    """Every source of a recipe's data, its rows made tokens by `encoder`. Raises DataError, ConfigError."""
    return [read(source, encoder, recipe.reading.strict) for source in sources_of(recipe)]


def check_place(recipe: Recipe | PretrainRecipe, replaces: bool, *read: str) -> None:
    """Raise ArtefactError, before any work is done, where `out` may not be written, or lies in the recipe's data, or
    holds them or what else is `read`.
    """
    data = [source.name for source in sources_of(recipe)]
    check_output(recipe.out, replaces, (*read, *data))
    check_outside(recipe.out, data)


def may_replace(recipe: Recipe | PretrainRecipe) -> bool:
    """What lies in `out` may be replaced: so it was asked for, or it is of the run that goes on here.

    A run that was killed between its last two acts has left what it trained, and still has its state.
    """
    return recipe.overwrite or (run_folder(recipe.out).exists() and not recipe.restart)
