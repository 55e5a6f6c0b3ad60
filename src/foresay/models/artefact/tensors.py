"""Which tensors of a drafting model lie in which file of its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foresay.models.base.user_lora import linear_in
from foresay.models.drafting import DraftingModel
from foresay.models.masks.model import MaskModel

WEIGHTS = "foresay.safetensors"
LORA = "lora"
"""Folder of the LoRA half, so that nothing takes the artefact for an ordinary PEFT adapter, which it is not."""
PEFT_SETTINGS, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Files:
    """What an artefact holds beside `foresay.json` and the card."""

    tensors: dict[str, dict[str, Tensor]]
    """Safetensors files: the model's own tensors by name, to be saved or to be filled."""
    settings: dict[str, dict[str, Any]]
    """JSON files."""


def files_of(model: DraftingModel, base: str) -> Files:
    """The files of `model` on the base called `base`."""
    if isinstance(model, MaskModel):
        tensors = {f"{LORA}/{PEFT_WEIGHTS}": _lora_tensors(model), WEIGHTS: _own_tensors(model)}
        return Files(tensors, {f"{LORA}/{PEFT_SETTINGS}": _peft_settings(model, base)})
    return Files({WEIGHTS: model.added.state_dict()}, {})


def lora_folder(artefact: Path) -> Path:
    """Folder of the LoRA half in PEFT's format; artefacts from before version 0.2 have it at their top."""
    folder = artefact / LORA
    return folder if folder.is_dir() else artefact


def _lora_tensors(model: MaskModel) -> dict[str, Tensor]:
    """The LoRA half, under PEFT's names."""
    tensors: dict[str, Tensor] = {}
    for pair in model.adapter.pairs:
        tensors[f"{PEFT_PREFIX}{pair.name}.lora_A.weight"] = pair.down
        tensors[f"{PEFT_PREFIX}{pair.name}.lora_B.weight"] = pair.up
    return tensors


def _own_tensors(model: MaskModel) -> dict[str, Tensor]:
    """The half that PEFT has no place for."""
    sampler = {f"sampler.{name}": value for name, value in model.adapter.sampler.state_dict().items()}
    return {"masks": model.adapter.mask_embeddings, **sampler}


def _peft_settings(model: MaskModel, base: str) -> dict[str, Any]:
    names = [pair.name for pair in model.adapter.pairs]
    transposed = any(not isinstance(linear_in(m), torch.nn.Linear) for m in model.base.linears().adapted.values())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": model.config.rank,
        "lora_alpha": model.config.lora_alpha,
        "target_modules": _targets(names, model),
        "fan_in_fan_out": transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _targets(names: list[str], model: MaskModel) -> list[str]:
    """Last parts of the names where PEFT takes them for the same linears (engines prefer them); else whole names."""
    ends = {name.rsplit(".", 1)[1] for name in names}
    meant = {name for name, _ in model.model.named_modules() if name.rsplit(".", 1)[-1] in ends}
    return sorted(ends) if meant == set(names) else sorted(names)
