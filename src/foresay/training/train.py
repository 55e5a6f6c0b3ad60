"""The verb `train`: from a base and a data file to a saved adapter, with real decodes on the way."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foresay.data.corpus import Part
from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.mixture import split
from foresay.data.prompts import Prompt
from foresay.foundation.errors import ConfigError, require
from foresay.model import MultiTokenModel
from foresay.models.artefact.fingerprint import Fingerprints
from foresay.models.base.device import device_for
from foresay.models.base.load import BaseName, chosen_dtype
from foresay.models.base.quantization import quantization_of
from foresay.models.config import HeadsConfig
from foresay.models.families import dtype_of_family
from foresay.training.config import LossConfig, TrainConfig, warm_up_notes
from foresay.training.label_check import PROBED, check_labels
from foresay.training.loop.distributed import Ranks, joined
from foresay.training.loop.fsdp import shard
from foresay.training.loop.objective import Objective
from foresay.training.loop.progress import Progress
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.heads_on_frozen_base import RetrofitObjective
from foresay.training.objectives.losses import own_loss
from foresay.training.objectives.masks import MaskObjective
from foresay.training.recipe import Recipe, check_place, may_replace, read_sources
from foresay.training.runs.adapter_run import AdapterHooks, TrainUpdate
from foresay.training.runs.run import Callbacks, Run
from foresay.training.runs.trackers import check_tracker
from foresay.training.runs.validation import HeldOut, Measured, heldout_prompts
from foresay.training.warm_start import begin_from, beginning

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


def _train(recipe: Recipe, prompts: Sequence[Prompt], callbacks: Callbacks[TrainUpdate], ranks: Ranks) -> TrainResult:
    replaces = may_replace(recipe)
    read = (recipe.base, recipe.loading.base_adapter, recipe.init_from)
    check_place(recipe, replaces, *filter(None, read))
    if recipe.losses.own_loss:
        own_loss(recipe.losses.own_loss)  # a name that leads nowhere is known before the base is loaded
    if isinstance(recipe.mtp, HeadsConfig):
        _refuse_mask_settings(recipe)
    recipe = settled(recipe)
    model = open_fresh(recipe)
    parts = read_parts(recipe, model)
    examples, apart = split(parts, 0 if prompts else recipe.train.heldout, recipe.train.seed)
    heldout = _heldout(recipe, model, tuple(prompts) or heldout_prompts(apart))
    objective = _objective(recipe, model, examples)
    said = [*(part.report.sentence for part in parts), *warm_up_notes(recipe.train), f"base: {model.loaded}"]
    said += [beginning(recipe.init_from, model)] if recipe.init_from else []
    callbacks.say(said, ranks)
    what = identity(recipe, model.fingerprints(), examples.content)
    hooks = AdapterHooks(recipe, model, heldout, [part.described for part in parts], ranks, replaces)
    last = Run.of(recipe, hooks, what, callbacks, ranks).train(objective)
    return TrainResult(
        model=model,
        folder=recipe.out,
        examples=len(examples),
        steps=last.step,
        seconds=last.seconds,
        loss=last.losses.total,
        measured=hooks.best or hooks.measured,
        decodes=tuple(hooks.decodes),
        leads=ranks.leads,
    )


def _heldout(recipe: Recipe, model: MultiTokenModel, prompts: tuple[Prompt, ...]) -> HeldOut:
    """What is decoded on the way. Raises ConfigError where nothing is and should be, PromptError."""
    config = recipe.train
    decodes = config.keep == "last" or bool(prompts)
    require(decodes, "keep is best and nothing is held out to decode; give --prompts or --heldout, or keep last")
    heldout = HeldOut(prompts, config.eval_tokens, config.eval_batch)
    heldout.check(model)
    return heldout


def _refuse_mask_settings(recipe: Recipe) -> None:
    """Raise ConfigError for a setting of the trainer that means nothing to heads, which learn from every row."""
    settings, plain = asdict(recipe.train) | asdict(recipe.losses), asdict(TrainConfig()) | asdict(LossConfig())
    for name in SETTINGS_OF_MASKS:
        given = settings[name]
        require(given == plain[name], f"{name} is {given!r}, and heads have no use for it; leave it out")


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the dtype that `auto` means here: what a run is must not depend on who goes on with it.

    Raises BaseNotFound, UnsupportedBase, ConfigError.
    """
    guest = BaseName.find(recipe.base, recipe.loading.base_adapter, recipe.loading.gguf_file)
    asked = dtype_of_family(recipe.train.dtype, recipe.mtp)
    dtype = chosen_dtype(guest.base, asked, device_for(recipe.loading.device))
    return replace(recipe, train=replace(recipe.train, dtype=dtype))


def open_fresh(recipe: Recipe) -> MultiTokenModel:
    """An adapter on the base, fresh or as another one is, and the base's layers sharded where the recipe says so."""
    config, sharded = recipe.train, recipe.train.parallel == "fsdp"
    loading = replace(recipe.loading, device="cpu") if sharded else recipe.loading
    model = MultiTokenModel.from_base(recipe.base, recipe.mtp, None, config.dtype, config.seed, loading)
    if sharded and quantization_of(model.base.model.config):
        raise ConfigError("parallel is fsdp, which shards no quantised weights; give --parallel ddp or a plain base")
    if recipe.init_from:
        begin_from(recipe.init_from, model)
    model.fingerprints()  # Of whole weights: shards have no fingerprint.
    if sharded:
        shard(model.heads_model if model.family == "heads" else model.mask_model, model.base.decoder_layers())
    return model


def _objective(recipe: Recipe, model: MultiTokenModel, examples: Sequence[Example]) -> Objective[Batch]:
    """What the recipe's family trains. Raises LossMaskError where masks would learn other tokens than they draft."""
    if model.family == "heads":
        return RetrofitObjective(model.heads_model, examples, recipe.train, recipe.losses)
    check_labels(model.mask_model, examples[:PROBED])
    return MaskObjective(model.mask_model, examples, recipe.train, recipe.losses)


def read_parts(recipe: Recipe, model: MultiTokenModel) -> list[Part]:
    """Every source of the recipe, read for the model. Raises DataError."""
    base = model.base
    length, known = min(recipe.train.max_length, base.limits[0]), base.embedding.weight.shape[0]
    encoder = Encoder(model.require_tokenizer(), length, frozenset(base.stop_tokens), known)
    return read_sources(recipe, encoder)


def identity(recipe: Recipe, base: Fingerprints, data: dict[str, Any]) -> dict[str, Any]:
    """What a run is: whatever could change a weight, and nothing that cannot; `data` is the examples' `content`."""
    train = {name: value for name, value in asdict(recipe.train).items() if name not in MAY_CHANGE}
    return {
        "base": asdict(base),
        "quantize": recipe.loading.quantize,
        "data": data,
        **({"init_from": recipe.init_from} if recipe.init_from else {}),
        **asdict(recipe.mtp),
        **asdict(recipe.losses),
        **train,
    }
