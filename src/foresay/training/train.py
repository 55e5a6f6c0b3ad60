"""The verb `train`: from a base and a data file to a saved adapter, with real decodes on the way."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foresay.data.corpus import Part, read
from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.mixture import split
from foresay.data.prompts import Prompt
from foresay.foundation.errors import ConfigError, require
from foresay.foundation.files import check_output
from foresay.model import MultiTokenModel
from foresay.models.artefact.fingerprint import Fingerprints
from foresay.models.base.device import device_for
from foresay.models.base.load import BaseName, chosen_dtype
from foresay.models.base.quantization import quantization_of
from foresay.models.config import HeadsConfig
from foresay.models.families import dtype_of_family
from foresay.models.heads.model import HeadsModel
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig, TrainConfig, warm_up_notes
from foresay.training.label_check import PROBED, check_labels
from foresay.training.loop.checkpoint import Checkpoints
from foresay.training.loop.distributed import Ranks, joined
from foresay.training.loop.fsdp import shard
from foresay.training.loop.objective import Objective
from foresay.training.loop.progress import Progress
from foresay.training.loop.trainer import Trainer
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.heads_on_frozen_base import RetrofitObjective
from foresay.training.objectives.masks import MaskObjective
from foresay.training.recipe import Recipe, sources_of
from foresay.training.runs.adapter_run import AdapterRun, Callbacks, TrainUpdate
from foresay.training.runs.trackers import check_tracker, closing
from foresay.training.runs.validation import HeldOut, Measured, heldout_prompts

__all__ = ["Recipe", "TrainResult", "TrainUpdate", "train"]
MAY_CHANGE = {
    *("chunk_anchors", "eval_every", "eval_tokens", "eval_batch", "keep", "save_every", "keep_checkpoints"),
    *("save_dtype", "parallel", "tracker"),
}
"""Training settings that a run may go on with otherwise than it was begun: they do not change what is learnt."""
SETTINGS_OF_MASKS = (
    *("pack", "anchors", "chunk_anchors", "curriculum_steps"),
    *("base_weight", "sampler_weight", "consistency_weight", "consistency_over", "real_rows"),
)
"""Settings of training and of its losses that heads have no use for."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run leaves."""

    model: MultiTokenModel
    folder: Path
    examples: int
    steps: int
    seconds: float
    loss: float
    measured: Measured | None
    """What the adapter in the folder decoded; None without held-out prompts."""
    decodes: tuple[Measured, ...]
    """Every decode since this start."""
    leads: bool = True
    """This process is the only one, or the one that speaks for all."""

    @property
    def tokens_per_step(self) -> dict[str, float]:
        """Of the adapter in the folder, by domain."""
        return self.measured.tokens_per_step if self.measured else {}


def train(
    recipe: Recipe,
    watch: Callable[[TrainUpdate], None],
    prompts: Sequence[Prompt] = (),
    stop: Callable[[Progress], bool] = lambda progress: False,
    told: Callable[[str], None] = lambda sentence: None,
) -> TrainResult:
    """Train an adapter and save it.

    `watch` is told of every step, `prompts` replace the examples held out of the data, `stop` may end the run early,
    `told` hears, in sentences, what became of the rows of each source and where figures are logged.
    A run that was killed goes on at its last checkpoint, exactly, when it is started again with the same recipe.
    Raises DataError, ArtefactError, ConfigError, BaseNotFound, UnsupportedBase; then nothing is written.
    """
    check_tracker(recipe.train.tracker)
    with joined(recipe.train.parallel) as ranks:
        return _train(recipe, prompts, Callbacks(watch, stop, told), ranks)


def _train(recipe: Recipe, prompts: Sequence[Prompt], callbacks: Callbacks, ranks: Ranks) -> TrainResult:
    going_on = recipe.run_folder.exists() and not recipe.restart
    data = [source.name for source in sources_of(recipe)]
    read = (recipe.base, recipe.loading.base_adapter or recipe.base, *data)
    check_output(recipe.out, recipe.overwrite or going_on, read)
    if isinstance(recipe.mtp, HeadsConfig):
        _refuse_mask_settings(recipe)
    recipe = settled(recipe)
    config = recipe.train
    model = open_fresh(recipe)
    parts = read_parts(recipe, model)
    examples, apart = split(parts, 0 if prompts else config.heldout, config.seed)
    heldout = HeldOut(tuple(prompts) or heldout_prompts(apart), config.eval_tokens, config.eval_batch)
    decodes = config.keep == "last" or bool(heldout.prompts)
    require(decodes, "keep is best and nothing is held out to decode; give --prompts or --heldout, or keep last")
    heldout.check(model)
    if isinstance(model.core, MaskModel):
        check_labels(model.core, examples[:PROBED])
    if ranks.leads:
        _tell(callbacks, parts, config, model)
    what = identity(recipe, model.fingerprints(), examples.content)
    checkpoints = Checkpoints(recipe.run_folder, what, config.keep_checkpoints)
    if recipe.restart and ranks.leads:
        checkpoints.remove()
    described = [part.described for part in parts]
    run = AdapterRun(
        recipe, model, heldout, described, callbacks, ranks, checkpoints, may_replace=recipe.overwrite or going_on
    )
    trainer = Trainer(_objective(recipe, model, examples), config, run.after_step, ranks, checkpoints, run.begin)
    with closing(lambda: run.tracker):
        last = trainer.run()
        run.finish(last)
    if ranks.leads:
        checkpoints.remove()
    return TrainResult(
        model=model,
        folder=recipe.out,
        examples=len(examples),
        steps=last.step,
        seconds=last.seconds,
        loss=last.losses.total,
        measured=run.best or run.measured,
        decodes=tuple(run.decodes),
        leads=ranks.leads,
    )


def _refuse_mask_settings(recipe: Recipe) -> None:
    """Raise ConfigError for a setting of the trainer that means nothing to heads, which learn from every row."""
    settings, plain = asdict(recipe.train) | asdict(recipe.losses), asdict(TrainConfig()) | asdict(LossConfig())
    for name in SETTINGS_OF_MASKS:
        given = settings[name]
        require(given == plain[name], f"{name} is {given!r}, and heads have no use for it; leave it out")


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the dtype that `auto` means here: what a run is must not hang on who goes on with it.

    Raises BaseNotFound, UnsupportedBase, ConfigError.
    """
    guest = BaseName.find(recipe.base, recipe.loading.base_adapter, recipe.loading.gguf_file)
    asked = dtype_of_family(recipe.train.dtype, recipe.mtp)
    dtype = chosen_dtype(guest.base, asked, device_for(recipe.loading.device))
    return replace(recipe, train=replace(recipe.train, dtype=dtype))


def open_fresh(recipe: Recipe) -> MultiTokenModel:
    """A fresh adapter on the base, whose layers are sharded where the recipe says so."""
    config, sharded = recipe.train, recipe.train.parallel == "fsdp"
    loading = replace(recipe.loading, device="cpu") if sharded else recipe.loading
    model = MultiTokenModel.from_base(recipe.base, recipe.mtp, None, config.dtype, config.seed, loading)
    if sharded and quantization_of(model.core.model.config):
        raise ConfigError("parallel is fsdp, which shards no quantised weights; give --parallel ddp or a plain base")
    model.fingerprints()  # Of whole weights: shards have no fingerprint.
    if sharded:
        shard(model.core, model.core.base.decoder_layers())
    return model


def _objective(recipe: Recipe, model: MultiTokenModel, examples: Sequence[Example]) -> Objective[Batch]:
    """What the recipe's family trains."""
    if isinstance(model.core, HeadsModel):
        return RetrofitObjective(model.core, examples, recipe.train, recipe.losses)
    return MaskObjective(model.mask_model, examples, recipe.train, recipe.losses)


def _tell(callbacks: Callbacks, parts: Sequence[Part], config: TrainConfig, model: MultiTokenModel) -> None:
    """Say what became of the rows, whether the run gets warm, and what the base is."""
    for sentence in (*(part.report.sentence for part in parts), *warm_up_notes(config), f"base: {model.loaded}"):
        callbacks.told(sentence)


def read_parts(recipe: Recipe, model: MultiTokenModel) -> list[Part]:
    """Every source of the recipe, read for the model. Raises DataError."""
    base, tokenizer = model.core.base, model.require_tokenizer()
    length, known = min(recipe.train.max_length, base.limits[0]), base.embedding.weight.shape[0]
    encoder = Encoder(tokenizer, length, frozenset(base.stop_tokens), known)
    return [read(source, encoder, recipe.reading.strict) for source in sources_of(recipe)]


def identity(recipe: Recipe, base: Fingerprints, data: dict[str, Any]) -> dict[str, Any]:
    """What a run is: whatever could change a weight, and nothing that cannot; `data` is the examples' `content`."""
    train = {name: value for name, value in asdict(recipe.train).items() if name not in MAY_CHANGE}
    return {
        "base": asdict(base),
        "quantize": recipe.loading.quantize,
        "data": data,
        **asdict(recipe.mtp),
        **asdict(recipe.losses),
        **train,
    }
