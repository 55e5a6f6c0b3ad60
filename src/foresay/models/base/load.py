"""Bases and tokenizers by name: `nano` (embedded), `smollm2`, a local folder, a GGUF file, or a hub id."""

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

from foresay.foundation.errors import ArtefactError, BaseNotFound, ConfigError, UnsupportedBase, first_line
from foresay.foundation.names import NAMED, NANO, SMOLLM2
from foresay.models.base.device import WEIGHT_BYTES, check_fits, device_for, dtype_for, weight_bytes
from foresay.models.base.gguf import checkpoint_of, is_gguf
from foresay.models.base.hub import cannot_be_id, fetched, holds, id_in_address, is_hub_id
from foresay.models.base.quantization import check_quantized, quantization_of, quantizer
from foresay.models.base.user_lora import attach, bare
from foresay.models.base.wheel import smollm2_folder
from foresay.models.config import DTYPE, DType, LoadConfig, LoadDType, Quantize

if TYPE_CHECKING:
    from peft import PeftModel

NAMES = " or ".join(NAMED)
ARTEFACT = "foresay.json"
"""Where this file stands beside an `adapter_config.json`, the folder is a foresay model and no user's LoRA."""


@dataclass(frozen=True, slots=True)
class BaseName:
    """A base by its name, and the LoRA that belongs to it."""

    base: str
    adapter: str = ""
    """Folder or hub id; empty: none."""

    @classmethod
    def find(cls, name: str, adapter: str = "", gguf_file: str = "") -> "BaseName":
        """What `name` means, a base or a PEFT LoRA that names its base, with the LoRA `adapter` where one is given.

        `gguf_file` is the one that is meant of a repository's, or of a folder's. Raises ConfigError when both are
        LoRAs, BaseNotFound for a foresay model or a LoRA that names no base, and what `base_folder` raises.
        """
        name = f"{name}/{gguf_file}" if gguf_file else name
        # A model with heads is an ordinary checkpoint as well.
        if (Path(name) / ARTEFACT).is_file() and not (Path(name) / "config.json").is_file():
            raise BaseNotFound(f"{name} is a foresay model and no base; give the base that it names in {ARTEFACT}")
        found = _lora_config(name)
        if found is None:
            return cls(name, _checked(adapter))
        if adapter:
            raise ConfigError(f"{name} is a PEFT adapter and so is {adapter}; give the base, or no other adapter")
        base = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise BaseNotFound(f"{name} is a PEFT adapter that names no base; give the base, and --base-adapter {name}")
        return cls(base, name)


def _lora_config(name: str) -> str | None:
    """Where the settings of the PEFT LoRA called `name` lie; None where it is none. Raises BaseNotFound."""
    folder = base_folder(name)
    try:
        found: str | None = find_adapter_config_file(folder)
    except OSError as error:  # also of a path or URL that is no hub id
        raise BaseNotFound(_not_found(name, folder, error)) from error
    return found


NANO_FOLDER = Path(__file__).with_name(NANO)
"""Base and adapter of the embedded model, and data to train one like it."""


def adapter_folder(name: str, revision: str | None = None) -> Path:
    """Where the adapter called `name` lies: a folder, one that comes with foresay, or a hub id's, at `revision`.

    Raises ArtefactError.
    """
    place = _adapter_place(name)
    if found := id_in_address(name):
        raise ArtefactError(f"{name} is an address; give the hub id in it, {found}")
    if is_hub_id(name):
        return fetched(name, ARTEFACT, revision)
    if revision:
        raise ArtefactError(f"revision {revision} was asked for and {name} is not on the hub; give a hub id, or none")
    if name in NAMED and not place.is_dir():
        raise ArtefactError(
            f"this foresay comes without an adapter for {name}; make one with foresay train {name} --data YOUR-DATA "
            "--out MY-ADAPTER, and give its folder"
        )
    return place


def is_adapter(name: str) -> bool:
    """`name` stands for a foresay model; a base may have the same name."""
    return holds(name, ARTEFACT) if is_hub_id(name) else (_adapter_place(name) / ARTEFACT).is_file()


def _adapter_place(name: str) -> Path:
    return Path(__file__).with_name(name) / "adapter" if name in NAMED else Path(name)


def own_dtype(name: str) -> DType:
    """Dtype of the checkpoint of the base called `name`; float32 where it says none of ours. Raises BaseNotFound."""
    return _find(name).dtype


def chosen_dtype(name: str, asked: LoadDType, device: str) -> DType:
    """What `asked` means for the base called `name` on `device`. Raises BaseNotFound, UnsupportedBase."""
    return dtype_for(asked, own_dtype(name), torch.device(device)) if asked == "auto" else asked


@dataclass(frozen=True, slots=True)
class _Found:
    """A causal LM on disk or hub, not yet loaded."""

    name: str
    folder: str
    config: Any

    @property
    def dtype(self) -> DType:
        """The checkpoint's own; float32 where it says none of ours."""
        dtype = str(self.config.dtype).removeprefix("torch.")
        return next((known for known in get_args(DType) if known == dtype), "float32")


def load_base(name: str, dtype: LoadDType = DTYPE, loading: LoadConfig | None = None) -> PreTrainedModel:
    """The causal LM called `name`, quantised and with the user's LoRA where `loading` says so.

    Raises BaseNotFound when there is none, UnsupportedBase when it is no causal LM, ConfigError when the device cannot
    be had or is too small, ConfigError or MissingPackage when it cannot be quantised. Remote code is never run.
    """
    loading = loading or LoadConfig()
    device = device_for(loading.device)
    found = _find(name)
    chosen = dtype_for(dtype, found.dtype, torch.device(device))
    quantization = quantizer(loading.quantize, name, found.config, chosen, device)
    _check_card(found, chosen, loading.quantize, device)
    settings: dict[str, Any] = {"dtype": getattr(torch, chosen)}
    if quantization is not None:
        settings["quantization_config"] = quantization
    if quantization is not None or hasattr(found.config, "quantization_config"):
        # Quantised weights are made on the device they stay on.
        settings["device_map"] = {"": device}
    model = _loaded(found, settings, device)
    return attach(model, loading.base_adapter) if loading.base_adapter else model


def weightless_base(name: str) -> PreTrainedModel:
    """The base called `name` without its weights, on torch's default device (`torch.device("meta")` keeps nothing).

    Raises BaseNotFound, UnsupportedBase.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_config(_find(name).config)
    return model


def _loaded(found: _Found, settings: dict[str, Any], device: str) -> PreTrainedModel:
    """The causal LM on `device`, as `settings` of transformers say."""
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(found.folder, **settings)
        return model if "device_map" in settings else model.to(device)  # type: ignore[arg-type]
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{found.name} does not fit {device} ({first_line(error)}); free some of it, or give --quantize nf4, a "
            "smaller base, another card, or --device cpu"
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        check_quantized(found.config, error)
        raise BaseNotFound(_not_found(found.name, found.folder, error)) from error


def _check_card(found: _Found, dtype: DType, quantize: Quantize, device: str) -> None:
    """Raise ConfigError where the weights do not fit the card; quantised ones of a kind unknown are let by."""
    quantization = quantization_of(found.config) or (quantize if quantize in WEIGHT_BYTES else "")
    if device.startswith("cuda") and quantization in ("", *WEIGHT_BYTES):
        free = torch.cuda.mem_get_info(device)[0]
        check_fits(found.name, dtype, weight_bytes(found.config, dtype, quantization), free, device)


def _find(name: str) -> _Found:
    folder = base_folder(name)
    _check_exists(name, folder, "config.json")
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BaseNotFound(_not_found(name, folder, error)) from error
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
        raise BaseNotFound(_not_found(name, folder, error, "tokenizer")) from error
    return tokenizer


def load_vocabulary(name: str) -> int:
    """Rows of the embeddings of the base called `name`: token ids below it are known. Raises BaseNotFound."""
    return int(_find(name).config.get_text_config().vocab_size)


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
        kind = f"a folder without {files[-1]}" if path.is_dir() else "a file, and no GGUF"
        raise BaseNotFound(f"{name} is {kind}; give a folder with a Hugging Face model, a GGUF file, a hub id, {NAMES}")


def _not_found(name: str, folder: str, error: Exception, sought: str = "model") -> str:
    if is_gguf(name) or name in NAMED:
        return f"{folder}, the checkpoint of {name}, cannot be read ({first_line(error)}); remove it and try again"
    if name and Path(name).is_dir():
        return f"{name} holds no {sought} that transformers can read ({first_line(error)}); give a whole one"
    if cannot_be_id(name):
        cure = id_in_address(name) or f"a local folder, a hub id, {NAMES}"
        return f"no base {name!r} was found: no such folder, and no hub id (OWNER/NAME); give {cure}"
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    why = "the hub is switched off (HF_HUB_OFFLINE)" if offline else first_line(error)
    return f"no base {name!r} was found: no such folder, and {why}; give a local folder, a reachable hub id, {NAMES}"


def open_base(
    base: "str | PreTrainedModel | PeftModel", dtype: LoadDType, loading: LoadConfig, trained_on: str = ""
) -> tuple[BaseName, PreTrainedModel]:
    """The base and what it is called; `trained_on` is the user's LoRA that it gets when no other is asked for."""
    if not isinstance(base, str):
        model = bare(base)
        return BaseName(_place(model.name_or_path)), model
    guest = BaseName.find(base, loading.base_adapter, loading.gguf_file)
    guest = BaseName(_place(guest.base), _place(guest.adapter or trained_on))
    return guest, load_base(guest.base, dtype, replace(loading, base_adapter=guest.adapter))


def own_tokenizer(base: "str | PreTrainedModel | PeftModel", guest: BaseName) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a base that was named; a model came without one."""
    return load_tokenizer(guest.base, guest.adapter) if isinstance(base, str) else None


def _place(name: str) -> str:
    """How the artefact names a base or LoRA: folders and files by their whole path, so that it loads from anywhere."""
    here = Path(name).is_dir() or (is_gguf(name) and Path(name).is_file())
    return str(Path(name).resolve()) if here and name not in ("", *NAMED) else name


def _checked(adapter: str) -> str:
    """`adapter`, unless it is a folder that holds no user's LoRA."""
    folder = Path(adapter)
    if adapter and (folder / ARTEFACT).is_file():
        raise BaseNotFound(f"{adapter} is a foresay model, which acts on mask rows alone; give a LoRA of your own")
    if adapter and folder.exists() and not (folder / ADAPTER_CONFIG_NAME).is_file():
        raise BaseNotFound(f"{adapter} has no {ADAPTER_CONFIG_NAME}, so it is no PEFT adapter; give a folder with one")
    return adapter


def base_folder(name: str) -> str:
    """Where transformers finds the base called `name`; a GGUF file is converted first if it was not before.

    Raises as `gguf.checkpoint_of`.
    """
    if name == NANO:
        return str(NANO_FOLDER / "base")
    if name == SMOLLM2:
        return str(smollm2_folder())
    return str(checkpoint_of(name)) if is_gguf(name) else name
