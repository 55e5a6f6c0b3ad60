"""What each family of drafting models is made of: its config, its model, its files and its card."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foresay.config import Family, HeadsConfig, MTPConfig
from foresay.errors import ConfigError
from foresay.modelling.drafting import DraftingModel
from foresay.modelling.guest import linear_in
from foresay.modelling.heads import HeadsModel
from foresay.modelling.model import MaskModel

FAMILIES: dict[str, type[Family]] = {"masks": MTPConfig, "heads": HeadsConfig}
WEIGHTS = "foresay.safetensors"
PEFT_SETTINGS, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Files:
    """What an artefact holds beside `foresay.json` and the card."""

    tensors: dict[str, dict[str, Tensor]]
    """Safetensors files: the model's own tensors by name, to be saved or to be filled."""
    settings: dict[str, dict[str, Any]]
    """JSON files."""


def family_of(config: Family) -> str:
    """Name of the family that `config` belongs to."""
    return next(name for name, kind in FAMILIES.items() if isinstance(config, kind))


def build(model: PreTrainedModel, config: Family, seed: int = 0) -> DraftingModel:
    """A drafting model on the base `model`, with weights yet to be loaded. Raises UnsupportedBase, ConfigError."""
    if isinstance(config, HeadsConfig):
        return HeadsModel.from_base(model, config, seed)
    return MaskModel.from_base(model, config, seed)


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


def files_of(model: DraftingModel, base: str) -> Files:
    """The files of `model` on the base called `base`."""
    if isinstance(model, MaskModel):
        tensors = {PEFT_WEIGHTS: _lora_tensors(model), WEIGHTS: _own_tensors(model)}
        return Files(tensors, {PEFT_SETTINGS: _peft_settings(model, base)})
    return Files({WEIGHTS: model.added.state_dict()}, {})


def card(config: Family, base: str) -> str:
    """The model card, in Markdown."""
    return _heads_card(config, base) if isinstance(config, HeadsConfig) else _masks_card(config, base)


def _masks_card(mtp: MTPConfig, base: str) -> str:
    return f"""---
base_model: {base}
library_name: foresay
tags: [multi-token-prediction, speculative-decoding]
---
# A multi-token adapter for {base}

Made with foresay. It lets the frozen base draft up to {mtp.num_masks} tokens behind every token and verify them in the
same forward, with the same greedy output. Gated LoRA of rank {mtp.rank}, sampler head `{mtp.sampler}`, mask embeddings
{"trained" if mtp.train_masks else "random and frozen"}.

    foresay generate FOLDER "your prompt" --stats
    foresay check FOLDER
    foresay bench FOLDER

The LoRA half (`{PEFT_WEIGHTS}`) is in PEFT's format, but **do not load it with plain PEFT to generate text**: there it
acts on every row and spoils the base. Here it acts on mask rows only, so the base's own output is untouched.

`foresay.json` holds settings, fingerprints of base, tokenizer and chat template, and how it was trained.
"""


def _heads_card(config: HeadsConfig, base: str) -> str:
    where = "The checkpoint in this folder" if base == "." else base
    own = ", each with an unembedding of its own" if config.replicated else ""
    if not config.drafts:
        return f"""---
library_name: foresay
---
# A language model

Made with foresay. {where} is an ordinary causal language model with one output head, which any tool loads and serves.
It drafts nothing: `foresay train` teaches it to, `foresay pretrain --continued --heads 4` gives it more heads.

`foresay.json` holds settings, fingerprints of tokenizer and chat template, and how it was trained.
"""
    return f"""---
library_name: foresay
tags: [multi-token-prediction, speculative-decoding]
---
# A model with {config.heads} output heads

Made with foresay. {where} is an ordinary causal language model: a trunk and head 1, which any tool loads and serves.
`{WEIGHTS}` holds what the other heads have ({config.variant}{own}): they draft up to {config.drafts}
tokens behind every token, and head 1 verifies them in the same forward, with the same greedy output.

    foresay generate FOLDER "your prompt" --stats
    foresay check FOLDER
    foresay bench FOLDER

`foresay.json` holds settings, fingerprints of base, tokenizer and chat template, and how it was trained.
"""


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
    return {"masks": model.adapter.masks, **sampler}


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
