"""Bases with weights of 8 or 4 bits, through transformers' own quantisers.

A quantised base is a base of its own: what is verified, and what lossless means, is the base as it was loaded.
"""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, TorchAoConfig

from foresay.foundation.errors import ConfigError, MissingPackage, UnsupportedBase
from foresay.models.config import DType, Quantize

LIBRARY = {"int8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}
"""Who quantises, by our names of what comes out."""


def quantizer(wanted: Quantize, name: str, config: Any, dtype: DType, device: str) -> Any:
    """transformers' settings for a base called `name`; None when it stays as it is.

    Raises ConfigError for a base that is quantised already and for what `device` or `dtype` cannot, MissingPackage.
    """
    had = quantization_of(config)
    if had and wanted not in ("auto", had):
        raise ConfigError(f"{name} comes quantised to {had} and --quantize {wanted} was given; leave it out")
    if had or wanted not in LIBRARY:
        return None
    library = LIBRARY[wanted]
    if find_spec(library) is None or find_spec("accelerate") is None:
        raise MissingPackage(f"--quantize {wanted} needs {library} and accelerate", "quantize")
    if wanted == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
    if wanted == "int4" and (not device.startswith("cuda") or dtype != "bfloat16"):
        raise ConfigError(
            f"--quantize int4 runs in bfloat16 on a CUDA GPU, and this is {dtype} on {device}; give int8, nf4 or "
            "none, or --dtype bfloat16 on such a GPU"
        )
    from torchao import quantization  # noqa: PLC0415 (an extra)

    if wanted == "int8":
        return TorchAoConfig(quantization.Int8WeightOnlyConfig())
    return TorchAoConfig(quantization.Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d"))


def check_quantized(config: Any, error: Exception) -> None:
    """Raise UnsupportedBase when it was the quantisation of a checkpoint that could not be loaded here."""
    how = quantization_of(config)
    if how:
        why = str(error).strip().splitlines()[0]
        raise UnsupportedBase(
            f"the base comes quantised to {how}, which cannot be loaded here ({why}); install what it asks for, run "
            "where it runs, or give the base unquantised"
        ) from error


def quantization_of(config: Any) -> str:
    """How a base with this config is quantised: our name where it has one, else its library's; empty: not at all."""
    config = getattr(config, "quantization_config", None)
    if config is None:
        return ""
    said = config if isinstance(config, dict) else config.to_dict()
    method = str(getattr(said["quant_method"], "value", said["quant_method"]))
    if said.get("load_in_4bit"):
        return str(said["bnb_4bit_quant_type"])
    if said.get("load_in_8bit"):
        return "bitsandbytes int8"
    kind = str(said.get("quant_type", ""))
    return next((ours for ours in ("int8", "int4") if f"I{ours[1:]}WeightOnly" in kind), method)
