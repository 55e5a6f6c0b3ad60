"""Bases and tokenizers by name: `nano` (embedded), a local folder, or a hub id."""

import os
from pathlib import Path
from typing import get_args

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
from transformers.utils import logging

from foresay.config import DType
from foresay.errors import ForesayError, UnsupportedBase

NANO = "nano"
EMBEDDED = Path(__file__).parent.parent / "embedded"


class BaseNotFound(ForesayError):
    """A base or tokenizer that is neither embedded, nor in a folder, nor to be had from the hub."""


def base_folder(name: str) -> str:
    """Where transformers finds the base called `name`."""
    return str(EMBEDDED / NANO / "base") if name == NANO else name


def adapter_folder(name: str) -> Path:
    """Where the adapter called `name` lies: a folder, or the embedded one."""
    return EMBEDDED / NANO / "adapter" if name == NANO else Path(name)


def own_dtype(name: str) -> DType:
    """Dtype of the checkpoint of the base called `name`; float32 where it says none of ours. Raises BaseNotFound."""
    folder = base_folder(name)
    _check_exists(name, folder, "config.json")
    try:
        dtype = str(AutoConfig.from_pretrained(folder).dtype).removeprefix("torch.")
    except (OSError, ValueError) as error:
        raise BaseNotFound(_not_found(name, error)) from error
    return next((known for known in get_args(DType) if known == dtype), "float32")


def load_base(name: str, dtype: DType, device: str | None = None) -> PreTrainedModel:
    """The causal LM called `name`, on `device` (None: the current CUDA device, or the CPU where there is none).

    Raises BaseNotFound when there is none, UnsupportedBase when it is no causal LM. Remote code is never run.
    """
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
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseNotFound(_not_found(name, error)) from error
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[no-any-return, arg-type]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the base called `name`. Raises BaseNotFound."""
    folder = base_folder(name)
    _check_exists(name, folder, "config.json")
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


def _check_exists(name: str, folder: str, file: str) -> None:
    path = Path(folder)
    if path.exists() and not (path / file).is_file():
        raise BaseNotFound(
            f"{name} is a folder without {file}; give a folder with a Hugging Face model, a hub id or nano"
        )


def _not_found(name: str, error: Exception) -> str:
    if Path(name).is_dir():
        return f"{name} holds no model that transformers can read ({_first_line(error)}); give a whole one"
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    why = "the hub is switched off (HF_HUB_OFFLINE)" if offline else _first_line(error)
    return f"no base {name!r} was found: no such folder, and {why}; give a local folder, a reachable hub id or nano"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
