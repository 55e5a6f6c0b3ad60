"""Where training goes on: a model with heads, or an ordinary one, with as many heads as are wanted now."""

from pathlib import Path

import torch

from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.artefact.folder import HERE, SETTINGS, read_settings
from foresay.models.base.load import load_base
from foresay.models.config import HeadsConfig, LoadConfig
from foresay.models.heads.model import HeadsModel


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
