"""The verb `pretrain`: a whole model from random weights, with one head or several (paper B)."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from foresay.data.encoder import Encoder
from foresay.data.mixture import split
from foresay.foundation.errors import BaseNotFound, ConfigError, require
from foresay.foundation.hashes import short_hash
from foresay.foundation.machine import in_software
from foresay.models.artefact.fingerprint import fingerprint, weights_hash
from foresay.models.base.device import check_trains, device_for, dtype_for
from foresay.models.base.load import load_tokenizer, own_dtype
from foresay.models.base.untrained import blank_model, named_tokenizer, read_config
from foresay.models.heads.model import HeadsModel
from foresay.training.config import PretrainConfig, warm_up_notes
from foresay.training.loop.distributed import Ranks, joined
from foresay.training.loop.fsdp import shard
from foresay.training.loop.progress import Progress
from foresay.training.objectives.heads import HeadsObjective
from foresay.training.objectives.token_rows import token_rows
from foresay.training.recipe import PretrainRecipe, check_place, may_replace, read_sources
from foresay.training.runs.pretrain_run import PretrainHooks, PretrainResult, PretrainUpdate
from foresay.training.runs.run import Callbacks, Run
from foresay.training.runs.trackers import check_tracker
from foresay.training.warm_start import checkpoint_of, continued

__all__ = ["PretrainRecipe", "PretrainResult", "PretrainUpdate", "pretrain"]
MAY_CHANGE = {"chunk_rows", "eval_every", "save_every", "keep_checkpoints", "save_dtype", "parallel", "tracker"}
"""Settings that a run may go on with otherwise than it was begun: they do not change what is learnt."""


def pretrain(
    recipe: PretrainRecipe,
    watch: Callable[[PretrainUpdate], None] = lambda reading: None,
    stop: Callable[[Progress], bool] = lambda progress: False,
    told: Callable[[str], None] = lambda sentence: None,
) -> PretrainResult:
    """Train a model and save it as an ordinary checkpoint, with its other heads beside it.

    `watch` is told of every step, `stop` may end the run early, `told` hears, in sentences, what became of
    the rows of each source and where figures are logged.
    A run that was killed goes on at its last checkpoint, exactly, when it is started again with the same recipe.
    Raises DataError, ArtefactError, ConfigError, BaseNotFound, UnsupportedBase; then nothing is written.
    """
    check_tracker(recipe.train.tracker)
    with joined(recipe.train.parallel) as ranks:
        return _pretrain(recipe, Callbacks(watch, stop, told), ranks)


def _pretrain(recipe: PretrainRecipe, callbacks: Callbacks[PretrainUpdate], ranks: Ranks) -> PretrainResult:
    recipe, replaces = settled(recipe), may_replace(recipe)
    config = recipe.train
    _check_shares(config, ranks)
    check_place(recipe, replaces, recipe.config, recipe.tokenizer or recipe.config)
    tokenizer = _tokenizer(recipe)
    model = _blank(recipe, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stops, known = frozenset(model.base.stop_tokens), model.base.embedding.weight.shape[0]
    parts = read_sources(recipe, Encoder(tokenizer, config.length, stops, known))
    callbacks.say((*(part.report.sentence for part in parts), *warm_up_notes(config)), ranks)
    examples, heldout = split(parts, config.heldout, config.seed)
    rows = token_rows(examples, config.length, config.answers_only)
    objective = HeadsObjective(model, rows, config)
    start = _start(recipe, model)
    _place(model, config)
    slow = in_software(config.dtype, model.base.device)
    callbacks.say([f"products in {config.dtype} on {model.base.device}{slow and f': {slow}'}"], ranks)
    described = [part.described for part in parts]
    hooks = PretrainHooks(recipe, start, model, tokenizer, heldout, described, ranks, replaces)
    last = Run.of(recipe, hooks, _identity(recipe, start, rows, tokenizer), callbacks, ranks).train(objective)
    return PretrainResult(
        folder=recipe.out,
        parameters=parameters,
        tokens=rows.numel(),
        last=hooks.update(last),
        tokens_per_step=hooks.tokens_per_step,
        dtype=config.dtype,
        leads=ranks.leads,
    )


def settled(recipe: PretrainRecipe) -> PretrainRecipe:
    """The recipe with the dtype that `auto` means here: what a run is must not depend on who goes on with it.

    Raises ConfigError, and BaseNotFound for a model to go on from that is none.
    """
    config, device = recipe.train, torch.device(device_for())
    if config.dtype != "auto":
        return recipe
    if config.continued:
        own: str = own_dtype(checkpoint_of(recipe.config))
    else:
        said = read_config(recipe.config)
        own = str(said.get("dtype") or said.get("torch_dtype"))
    dtype = dtype_for("auto", "bfloat16" if own == "bfloat16" else "float32", device)
    return replace(recipe, train=replace(config, dtype="bfloat16" if dtype == "bfloat16" else "float32"))


def _check_shares(config: PretrainConfig, ranks: Ranks) -> None:
    """Raise ConfigError where not all processes of a sharded model would take part in every call."""
    if config.parallel == "fsdp" and config.rows % ranks.world:
        raise ConfigError(
            f"batch_tokens makes {config.rows} rows of {config.length} tokens for {ranks.world} processes, and fsdp "
            f"needs as many in each; give a multiple of {config.length * ranks.world}, or --parallel ddp"
        )


def _place(model: HeadsModel, config: PretrainConfig) -> None:
    """Move a whole model to the device that it is trained on, in shards where they are asked for.

    Raises ConfigError where it does not fit.
    """
    if config.parallel == "fsdp":
        shard(model, [*model.base.decoder_layers(), *model.heads.layers])
        return
    device = device_for()
    if device == "cuda":
        parameters = sum(parameter.numel() for parameter in model.parameters())
        # Muon keeps one moment of a matrix, AdamW two.
        check_trains(parameters, 3 if config.optimizer == "muon" else 4, torch.cuda.mem_get_info()[0], device)
    model.to(device)


def _tokenizer(recipe: PretrainRecipe) -> PreTrainedTokenizerBase:
    """The tokenizer that is named, or the one beside config or model: going on, both must have the same tokens."""
    place = checkpoint_of(recipe.config) if recipe.train.continued else recipe.config
    tokenizer = named_tokenizer(place, recipe.tokenizer)
    if not (recipe.train.continued and recipe.tokenizer):
        return tokenizer
    try:
        own = load_tokenizer(place)
    except BaseNotFound:
        return tokenizer
    if own.get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"tokenizer {recipe.tokenizer} has another vocabulary than the one beside {place}, whose weights are to be "
            "trained on; leave --tokenizer out"
        )
    return tokenizer


def _blank(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> HeadsModel:
    """Trunk and heads with random weights, or those to go on from; all of them to be trained, on the CPU as yet."""
    config = recipe.train
    if config.continued:
        model = continued(recipe.config, recipe.heads, config.seed)
        require(
            len(tokenizer) <= model.base.vocabulary,
            f"the tokenizer has {len(tokenizer)} tokens and {recipe.config} has weights for {model.base.vocabulary}; "
            "give the tokenizer that it was trained with",
        )
    else:
        base = blank_model(read_config(recipe.config), tokenizer, recipe.heads, config.added_layers, config.seed)
        model = HeadsModel.from_base(base, recipe.heads, config.seed)
    if config.length > model.base.limits[0]:
        raise ConfigError(
            f"length is {config.length} and the config's model reads {model.base.limits[0]} tokens; shorten the rows, "
            "or raise max_position_embeddings"
        )
    if config.length <= recipe.heads.heads:
        raise ConfigError(f"length is {config.length} for {recipe.heads.heads} heads; give longer rows")
    return model.requires_grad_(True)


def _start(recipe: PretrainRecipe, model: HeadsModel) -> dict[str, Any]:
    """What the model is, ready for JSON: its config, or the weights that it goes on from."""
    if not recipe.train.continued:
        return read_config(recipe.config)
    return {"base": fingerprint(model.model, None).base, "heads": weights_hash(model.heads.state_dict())}


def _identity(
    recipe: PretrainRecipe, start: dict[str, Any], rows: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """What a run is: whatever could change a weight, and nothing that cannot."""
    return {
        "model": start,
        "data": {"rows": len(rows), "sha256": short_hash(rows.numpy().tobytes())},
        # Not `tokenizer_fingerprints`: runs that were begun with this value go on.
        "tokenizer": short_hash(repr(sorted(tokenizer.get_vocab().items()))),
        **asdict(recipe.heads),
        **{name: value for name, value in asdict(recipe.train).items() if name not in MAY_CHANGE},
    }
