"""What a base may be called, and the user's own PEFT LoRA that it may carry.

That LoRA acts on every row: base and LoRA together are the guest, and decoding is lossless to both. PEFT reads and
attaches it; it is never merged into the weights, which would round them anew.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foresay.foundation.errors import BaseNotFound, MissingPackage, UnsupportedBase, in_words

if TYPE_CHECKING:
    from peft import PeftModel

WRAPPERS = ("base_layer", "original_module")
"""Names under which PEFT keeps a module of the base that it put its own around."""
ADDED = re.compile(r"\.(lora_\w+|modules_to_save|token_adapter)\.")
"""In the name of a tensor: it is the LoRA's."""


def attach(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """`model` with the LoRA `adapter` in place, by PEFT. Raises MissingPackage, BaseNotFound, UnsupportedBase."""
    try:
        import peft  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise MissingPackage(f"The LoRA in {adapter} is read by peft", "peft") from error
    failed = f"{adapter} is no LoRA that peft can attach to {model.name_or_path}"
    torn = (ValueError, RuntimeError, LookupError, TypeError, SafetensorError)
    with in_words(BaseNotFound, failed, "give one that was trained on this base", *torn):
        config = peft.PeftConfig.from_pretrained(adapter)
        weights = peft.load_peft_weights(adapter, device="cpu")
        _check_rows(model, adapter, config, weights)
        attached = peft.PeftModel.from_pretrained(model, adapter)
        saved = set(weights)
    held = set(peft.get_peft_model_state_dict(attached, save_embedding_layers=False))
    apart = sorted(name for name in saved ^ held if ".lora_" in name)
    if apart:
        raise BaseNotFound(f"{adapter} and {model.name_or_path} disagree on {apart[0]}; give the base it was made for")
    return bare(attached)


def _check_rows(model: PreTrainedModel, adapter: str, config: Any, weights: dict[str, Tensor]) -> None:
    """Raise BaseNotFound for a LoRA with tokens of its own, which this base has no rows for."""
    own = model.get_input_embeddings().weight.shape[0]
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module in modules}
    whole = [len(value) for key, value in weights.items() if names & {*key.split(".")} and ".lora_" not in key]
    chosen = getattr(config, "trainable_token_indices", None) or []
    asked = [index + 1 for some in (chosen.values() if isinstance(chosen, dict) else [chosen]) for index in some]
    rows = max([*(count for count in whole if count != own and not chosen), *(n for n in asked if n > own)], default=0)
    if rows:
        raise BaseNotFound(
            f"{adapter} was trained on a base with {rows} or more token embeddings, and {model.name_or_path} has "
            f"{own}; give that base: load it in transformers, call resize_token_embeddings({rows}), and save it with "
            "the LoRA's tokenizer"
        )


def bare(model: "PreTrainedModel | PeftModel") -> PreTrainedModel:
    """The causal LM inside a PeftModel, with the LoRA in place, which computes the same; another model as it is.

    Raises UnsupportedBase for adapters that do more than stand in linears (prompts, activation by tokens).
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise UnsupportedBase(f"the base is a {kind}; give a name (folder, hub id), a causal LM or a PeftModel")
    for config in getattr(model, "peft_config", {}).values():
        kind = "aLoRA" if getattr(config, "alora_invocation_tokens", None) else str(config.peft_type.value)
        if kind != "LORA":
            raise UnsupportedBase(f"the base carries a {kind} adapter, and foresay drives LoRA alone; merge it first")
    return model if isinstance(model, PreTrainedModel) else cast("PeftModel", model).get_base_model()


def linear_in(module: nn.Module) -> nn.Linear | Conv1D | None:
    """`module` when it is a linear, or the linear that PEFT put it around; None when there is none."""
    own = _inside(module)
    return own if isinstance(own, nn.Linear | Conv1D) else None


def modules_below(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of everything below, as the base has it: with what PEFT put around a module in its place."""
    for own, child in module.named_children():
        yield f"{name}{own}", child
        yield from modules_below(_inside(child), f"{name}{own}.")


def _inside(module: nn.Module) -> nn.Module:
    """The base's own module in what PEFT put around it; another one as it is."""
    inner = next((module._modules[name] for name in WRAPPERS if name in module._modules), None)
    return module if inner is None else _inside(inner)


def base_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The base's own tensors, under the names that they have without PEFT."""
    inside = re.compile(rf"\.({'|'.join(WRAPPERS)})\.")
    return {inside.sub(".", name): value for name, value in model.state_dict().items() if not ADDED.search(name)}


def adapter_weights(model: PreTrainedModel) -> dict[str, Tensor | float]:
    """Tensors and scalings of the user's LoRA that is switched on, without the name it was given; empty: none is."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        for adapter in _active(module):
            if adapter in getattr(module, "scaling", {}):
                found[f"{name}.scaling"] = float(module.scaling[adapter])
            found |= {
                f"{name}.{key.replace(f'.{adapter}', '')}": value
                for key, value in module.state_dict().items()
                if ADDED.search(f".{key}") and adapter in key.split(".")
            }
    return found


def _active(module: nn.Module) -> list[str]:
    """Names of the adapters that are switched on in a layer of PEFT's; none in a module of the base."""
    if not any(name in module._modules for name in WRAPPERS) or module.disable_adapters:
        return []
    return list(cast(Any, module).active_adapters)
