"""Where training goes on: a model with heads, an ordinary one that gets heads, or a saved adapter."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.model import MultiTokenModel
from foresay.models.artefact.folder import HERE, SETTINGS, load_weights, read_settings
from foresay.models.base.load import adapter_folder, load_base
from foresay.models.config import Family, HeadsConfig, LoadConfig, MTPConfig
from foresay.models.heads.model import HeadsModel
from foresay.models.masks.model import MaskModel

FREE = ("num_masks", "train_masks")
"""Settings in which an adapter may differ from the one that it begins with."""


def continued(name: str, wanted: HeadsConfig, seed: int) -> HeadsModel:
    """The model called `name` in float32 on the CPU, all of it to be trained, with the heads that are `wanted`.

    The farthest heads are dropped (paper B, section 4.3: n' < n), or more begin as copies of head 1 on top of what is
    there (table S6, "+layers"). Raises ConfigError where the wanted heads are of another kind, ArtefactError,
    BaseNotFound, UnsupportedBase.
    """
    loading = LoadConfig(device="cpu")
    held = _held(name, loading)
    model = held.model if held else load_base(name, "float32", loading)
    if held:
        _check_kind(name, held.config, wanted)
        if held.config.heads == wanted.heads:
            return held
    made = HeadsModel.from_base(model, wanted, seed)
    made.copy_last_layer()
    if held:
        kept = held.heads.state_dict()
        with torch.no_grad():
            for key, tensor in made.heads.state_dict().items():
                tensor.copy_(kept.get(key, tensor))
    return made


def begin_from(name: str, model: MultiTokenModel) -> None:
    """Fill a fresh adapter with what the one called `name` has learnt.

    That one may have been trained on another base, whose layers have the same shapes: the one that this base is a
    fine-tune of. Masks that it lacks begin as copies of its last one; those beyond `num_masks` are left out.

        model = MultiTokenModel.from_base("my-tuned-base", MultiTokenModel.from_pretrained("my-adapter").config)
        begin_from("my-adapter", model)

    Raises ConfigError for other settings, ArtefactError where there is no such adapter, or its weights do not fit.
    """
    place = adapter_folder(name)
    held = read_settings(place)
    if differing := list(_differing(held.mtp, model.config)):
        raise ConfigError(
            f"training is to begin with the adapter {name}, which has other settings than were asked for "
            f"({', '.join(differing)}); give its own, or leave --init-from out"
        )
    try:
        if model.family == "heads":
            load_weights(place, model.heads_model)
        else:
            _fill(model.mask_model, held.mtp, place)
    except ArtefactError as error:
        why = str(error).partition(";")[0]
        raise ArtefactError(
            f"training is to begin with the adapter {name}, which does not fit {model.base_name} ({why}); give one of "
            "a base with the same layers, or leave --init-from out"
        ) from error


def beginning(name: str, model: MultiTokenModel) -> str:
    """What a model that `begin_from` filled begins with, in a sentence. Raises ArtefactError."""
    held = read_settings(adapter_folder(name))
    elsewhere = held.fingerprints.differing(model.fingerprints())
    other = f", though {' and '.join(elsewhere).replace('_', ' ')} are not those it was trained on" if elsewhere else ""
    return f"begins with the adapter {name}, of {held.mtp.drafts} drafts, trained on {held.base}{other}"


def _fill(model: MaskModel, held: Family, place: Path) -> None:
    """The weights in `place`, with as many masks as `model` has."""
    assert isinstance(held, MTPConfig), "its settings were compared"
    source = MaskModel(model.base, held)  # never run, so its LoRA is not attached
    load_weights(place, source)
    state: dict[str, Tensor] = source.adapter.state_dict()
    chosen = torch.arange(model.config.num_masks).clamp(max=held.num_masks - 1)
    state["mask_embeddings"] = state["mask_embeddings"][chosen]
    model.adapter.load_state_dict(state)


def _differing(held: Family, wanted: Family) -> Iterator[str]:
    """What is not the same in both, in words."""
    if type(held) is not type(wanted):
        yield "masks and heads"
        return
    asked = asdict(wanted)
    for name, value in asdict(held).items():
        if name not in FREE and asked[name] != value:
            yield f"{name} {value!r} for {asked[name]!r}"


def checkpoint_of(name: str) -> str:
    """Where the ordinary checkpoint of the model called `name` lies: heads on a frozen base have theirs elsewhere."""
    folder = Path(name)
    base = read_settings(folder).base if (folder / SETTINGS).is_file() else HERE
    return name if base == HERE else base


def _held(name: str, loading: LoadConfig) -> HeadsModel | None:
    """A model with heads; None where there is an ordinary checkpoint only."""
    if not (Path(name) / SETTINGS).is_file():
        return None
    model = MultiTokenModel.from_pretrained(name, dtype="float32", loading=loading)
    if model.family != "heads":
        raise ConfigError(f"{name} is an adapter with masks, which has no whole model to go on from; give its base")
    return model.heads_model


def _check_kind(name: str, held: HeadsConfig, wanted: HeadsConfig) -> None:
    alike = (held.variant, held.replicated) == (wanted.variant, wanted.replicated) or 1 in (held.heads, wanted.heads)
    if not alike or (held.variant == "anticausal" and held.heads != wanted.heads):
        raise ConfigError(
            f"{name} has {held.heads} {held.variant} heads{' with unembeddings of their own' * held.replicated}, and "
            f"{wanted.heads} {wanted.variant} ones were asked for; go on with heads of that kind, and, of anticausal "
            "ones, with as many, since each builds on the next"
        )
