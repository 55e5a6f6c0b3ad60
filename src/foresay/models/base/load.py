"""Bases and tokenizers by name: `nano` (embedded), a local folder, or a hub id."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import ADAPTER_CONFIG_NAME, find_adapter_config_file, logging

from foresay.foundation.errors import BaseNotFound, ConfigError, UnsupportedBase
from foresay.foundation.names import NANO
from foresay.models.base.quantization import check_quantized, quantizer
from foresay.models.base.user_lora import bare, hang
from foresay.models.config import DType, LoadConfig

if TYPE_CHECKING:
    from peft import PeftModel

ARTEFACT = "foresay.json"
"""Where this file stands beside an `adapter_config.json`, the folder is a foresay model and no user's LoRA."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A base by its name, and the LoRA that belongs to it."""

    base: str
    adapter: str = ""
    """Folder or hub id; empty: none."""

    @classmethod
    def find(cls, name: str, adapter: str = "") -> "Guest":
        """What `name` means, a base or a PEFT LoRA that names its base, with the LoRA `adapter` where one is given.

        Raises ConfigError when both are LoRAs, BaseNotFound for a foresay model or a LoRA that names no base.
        """
        # A model with heads is an ordinary checkpoint as well.
        if (Path(name) / ARTEFACT).is_file() and not (Path(name) / "config.json").is_file():
            raise BaseNotFound(f"{name} is a foresay model and no base; give the base that it names in {ARTEFACT}")
        found = find_adapter_config_file(base_folder(name))
        if found is None:
            return cls(name, _checked(adapter))
        if adapter:
            raise ConfigError(f"{name} is a PEFT adapter and so is {adapter}; give the base, or no other adapter")
        base = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise BaseNotFound(f"{name} is a PEFT adapter that names no base; give the base, and --base-adapter {name}")
        return cls(base, name)


NANO_FOLDER = Path(__file__).with_name(NANO)
"""Base and adapter of the embedded model, and data to train one like it."""


def adapter_folder(name: str) -> Path:
    """Where the adapter called `name` lies: a folder, or the embedded one."""
    return NANO_FOLDER / "adapter" if name == NANO else Path(name)


def own_dtype(name: str) -> DType:
    """Dtype of the checkpoint of the base called `name`; float32 where it says none of ours. Raises BaseNotFound."""
    dtype = str(_find(name).config.dtype).removeprefix("torch.")
    return next((known for known in get_args(DType) if known == dtype), "float32")


@dataclass(frozen=True, slots=True)
class _Found:
    """A causal LM on disk or hub, not yet loaded."""

    name: str
    folder: str
    config: Any


def load_base(name: str, dtype: DType, loading: LoadConfig | None = None) -> PreTrainedModel:
    """The causal LM called `name`, quantised and with the user's LoRA where `loading` says so.

    Raises BaseNotFound when there is none, UnsupportedBase when it is no causal LM, ConfigError or MissingPackage when
    it cannot be quantised. Remote code is never run.
    """
    loading = loading or LoadConfig()
    device = _device(loading.device)
    found = _find(name)
    quantization = quantizer(loading.quantize, name, found.config, dtype, device)
    settings: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if quantization is not None:
        settings["quantization_config"] = quantization
    if quantization is not None or hasattr(found.config, "quantization_config"):
        # Quantised weights are made on the device they stay on.
        settings["device_map"] = {"": device}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(found.folder, **settings)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        check_quantized(found.config, error)
        raise BaseNotFound(_not_found(name, error)) from error
    model = model if "device_map" in settings else model.to(device)  # type: ignore[arg-type]
    return hang(model, loading.base_adapter) if loading.base_adapter else model


def _device(asked: str) -> str:
    """The device asked for, or the one there is. Raises ConfigError for one that cannot be had."""
    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device is {device!r}, which cannot be had here ({_first_line(error)}); give cpu") from error
    return device


def _find(name: str) -> _Found:
    folder = base_folder(name)
    _check_exists(name, folder, "config.json")
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BaseNotFound(_not_found(name, error)) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise UnsupportedBase(
            f"{name} is a {config.model_type} model, not a causal LM; give a decoder-only attention model"
        )
    return _Found(name, folder, config)


def load_tokenizer(name: str, adapter: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer that was saved with the user's LoRA `adapter`, else that of the base called `name`.

    Raises BaseNotFound.
    """
    if adapter and (Path(adapter) / "tokenizer_config.json").is_file():
        folder = adapter
    else:
        folder = base_folder(name)
        _check_exists(name, folder, "tokenizer_config.json", "config.json")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BaseNotFound(f"{name} has no tokenizer that transformers can read ({_first_line(error)})") from error
    return tokenizer


def load_stop_tokens(name: str) -> frozenset[int]:
    """Ids that end an answer of the base called `name`; empty when its generation settings name none."""
    try:
        stops = GenerationConfig.from_pretrained(base_folder(name)).eos_token_id
    except (OSError, ValueError):
        return frozenset()
    return frozenset() if stops is None else frozenset(stops if isinstance(stops, list) else [stops])


def _check_exists(name: str, folder: str, *files: str) -> None:
    path = Path(folder)
    if path.exists() and not any((path / file).is_file() for file in files):
        raise BaseNotFound(
            f"{name} is a folder without {files[-1]}; give a folder with a Hugging Face model, a hub id or nano"
        )


def _not_found(name: str, error: Exception) -> str:
    if Path(name).is_dir():
        return f"{name} holds no model that transformers can read ({_first_line(error)}); give a whole one"
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    why = "the hub is switched off (HF_HUB_OFFLINE)" if offline else _first_line(error)
    return f"no base {name!r} was found: no such folder, and {why}; give a local folder, a reachable hub id or nano"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def open_base(
    base: "str | PreTrainedModel | PeftModel", dtype: DType, loading: LoadConfig, trained_on: str = ""
) -> tuple[Guest, PreTrainedModel]:
    """The base and what it is called; `trained_on` is the user's LoRA that it gets when no other is asked for."""
    if not isinstance(base, str):
        model = bare(base)
        return Guest(_place(model.name_or_path)), model
    guest = Guest.find(base, loading.base_adapter)
    guest = Guest(_place(guest.base), _place(guest.adapter or trained_on))
    return guest, load_base(guest.base, dtype, replace(loading, base_adapter=guest.adapter))


def own_tokenizer(base: "str | PreTrainedModel | PeftModel", guest: Guest) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a base that was named; a model came without one."""
    return load_tokenizer(guest.base, guest.adapter) if isinstance(base, str) else None


def _place(name: str) -> str:
    """How the artefact names a base or LoRA: folders by their whole path, so that it loads from anywhere."""
    return str(Path(name).resolve()) if name not in ("", NANO) and Path(name).is_dir() else name


def _checked(adapter: str) -> str:
    """`adapter`, unless it is a folder that holds no user's LoRA."""
    folder = Path(adapter)
    if adapter and folder.exists() and not (folder / ADAPTER_CONFIG_NAME).is_file():
        raise BaseNotFound(f"{adapter} has no {ADAPTER_CONFIG_NAME}, so it is no PEFT adapter; give a folder with one")
    if adapter and (folder / ARTEFACT).is_file():
        raise BaseNotFound(f"{adapter} is a foresay model, which acts on mask rows alone; give a LoRA of your own")
    return adapter


def base_folder(name: str) -> str:
    """Where transformers finds the base called `name`."""
    return str(NANO_FOLDER / "base") if name == NANO else name
