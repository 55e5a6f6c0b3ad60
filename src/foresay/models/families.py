"""Families of drafting models: each config, and the model that is built of it."""

import torch
from transformers import PreTrainedModel

from foresay.foundation.errors import ConfigError, require
from foresay.models.config import Family, HeadsConfig, LoadDType, MTPConfig
from foresay.models.drafting import DraftingModel
from foresay.models.heads.model import HeadsModel
from foresay.models.masks.model import MaskModel

FAMILIES: dict[str, type[Family]] = {"masks": MTPConfig, "heads": HeadsConfig}


def family_of(config: Family) -> str:
    """Name of the family that `config` belongs to."""
    return next(name for name, kind in FAMILIES.items() if isinstance(config, kind))


def build(model: PreTrainedModel, config: Family, seed: int = 0) -> DraftingModel:
    """A drafting model on the base `model`, with weights yet to be loaded. Raises UnsupportedBase, ConfigError."""
    kind = type(config).__name__
    require(isinstance(config, Family), f"config is a {kind}; give an MTPConfig or a HeadsConfig")
    if isinstance(config, HeadsConfig):
        return HeadsModel.from_base(model, config, seed)
    return MaskModel.from_base(model, config, seed)


def dtype_of_family(asked: LoadDType, config: Family | None) -> LoadDType:
    """`asked`; for heads on a frozen base, which are trained in its dtype, `auto` is float32."""
    return "float32" if asked == "auto" and isinstance(config, HeadsConfig) else asked


def fresh(model: PreTrainedModel, config: Family, seed: int) -> DraftingModel:
    """A drafting model to be trained on the frozen base `model`; heads begin as its own. Raises as `build`."""
    made = build(model, config, seed)
    if isinstance(made, HeadsModel):
        if made.config.variant == "anticausal" or not made.config.drafts or made.base.dtype != torch.float32:
            raise ConfigError(
                f"{made.config.heads} {made.config.variant} heads in {made.base.dtype} cannot be put on a frozen base: "
                "give --heads 2 or more and --dtype float32, and no anticausal ones, which change the base"
            )
        made.copy_last_layer()
    return made
