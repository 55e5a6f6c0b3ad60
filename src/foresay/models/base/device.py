"""Which device a base goes to, in which dtype, and whether it fits there: known before anything is loaded."""

import re
import warnings
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from foresay.foundation.errors import ConfigError, first_line, require
from foresay.foundation.machine import multiplies_bfloat16
from foresay.models.config import DType, LoadConfig, LoadDType

AnyDType = DType | torch.dtype
"""By its name, or torch's own."""

GIB = 2**30
TOO_OLD = "driver on your system is too old"
"""What torch says of a driver that speaks an older CUDA than it was built for, with that CUDA as 1000 * major + 10 *
minor (`c10/cuda/CUDAFunctions.cpp`)."""
WEIGHT_BYTES = {"int8": 1.0, "int4": 0.5 + 4 / 128, "nf4": 0.5 + 4 / 64}
"""Bytes of a quantised weight with its share of the scales: none to speak of, a pair of two bytes for 128 weights
(torchao), one of four for 64 (bitsandbytes)."""


def device_for(asked: str = "") -> str:
    """The device asked for; empty: CUDA where there is a card, else the CPU.

    Raises ConfigError for a device that cannot be had, and, where none was asked for, for a card whose driver is too
    old for this torch: the CPU is no place to end up unasked.
    """
    if asked:
        try:
            torch.empty(0, device=asked)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(refusal(asked, str(error), torch.version.cuda)) from error
        return asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said below, in one sentence
        if torch.cuda.is_available():
            return "cuda"
    why = _why_no_cuda()
    if TOO_OLD in why:
        raise ConfigError(refusal("cuda", why, torch.version.cuda))
    return "cpu"


def placed(loading: LoadConfig, device_map: Any) -> LoadConfig:
    """`loading` on the one device that transformers' `device_map` means; None leaves it as it is.

    Raises ConfigError for a map that spreads a model: its rows, slots and adapter must lie together.
    """
    if device_map is None or device_map == "auto":  # auto: a card where there is one, which is what we do
        return loading
    device = device_map.get("") if isinstance(device_map, dict) and device_map.keys() == {""} else device_map
    if not isinstance(device, str | int | torch.device) or device in ("balanced", "balanced_low_0", "sequential"):
        raise ConfigError(
            f"device_map is {device_map!r}, and a model must lie on one device; give a device ('cuda:0'), or 'auto'"
        )
    return replace(loading, device=f"cuda:{device}" if isinstance(device, int) else str(device))


def dtype_name(dtype: LoadDType | torch.dtype) -> LoadDType:
    """`torch.bfloat16` as `bfloat16`, and a name as it is. Raises ConfigError for any other dtype.

    >>> dtype_name(torch.bfloat16), dtype_name("auto")
    ('bfloat16', 'auto')
    """
    name = str(dtype).removeprefix("torch.")
    if name not in get_args(LoadDType):
        raise ConfigError(f"dtype is {dtype}; give one of {', '.join(get_args(LoadDType))}, as a name or from torch")
    return name  # type: ignore[return-value]


def torch_dtype(dtype: AnyDType) -> torch.dtype:
    """`bfloat16` as `torch.bfloat16`, and torch's own as it is. Raises ConfigError for any other."""
    name = dtype_name(dtype)
    require(name != "auto", f"dtype is auto; give one of {', '.join(get_args(DType))}, as a name or from torch")
    found: torch.dtype = getattr(torch, name)
    return found


def dtype_for(asked: LoadDType, own: DType, device: torch.device) -> DType:
    """What `asked` means for a checkpoint whose dtype is `own` on `device`; see `LoadDType`."""
    if asked != "auto":
        return asked
    pays = device.type != "cpu" or (own == "bfloat16" and multiplies_bfloat16(device))
    return own if pays else "float32"


def refusal(device: str, why: str, built_for: str | None) -> str:
    """Why `device` cannot be had and what to do, from what torch said and the CUDA version it is built for."""
    if device.startswith("cuda") and built_for is None:
        return (
            f"device is {device!r} and this torch ({torch.__version__}) is built without CUDA; install a build with it "
            "(https://pytorch.org/get-started/locally), or give --device cpu"
        )
    if TOO_OLD in why:
        version = re.search(r"found version (\d+)", why)
        spoken = f"speaks CUDA {int(version[1]) // 1000}.{int(version[1]) % 1000 // 10}" if version else "is older"
        return (
            f"the NVIDIA driver here {spoken} and this torch is built for CUDA {built_for}; update the driver, install "
            "a torch that is built for the driver's CUDA, or give --device cpu"
        )
    return f"device is {device!r}, which cannot be had here ({first_line(why)}); give another one, or --device cpu"


def weight_bytes(config: Any, dtype: DType, quantization: str = "") -> int:
    """Bytes of the weights of the causal LM that `config` describes, in `dtype`; none of them is allocated.

    `quantization` (a key of `WEIGHT_BYTES`; empty: none) is of the linears but the unembedding.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    whole: int = sum(parameter.nbytes for parameter in model.parameters())
    if not quantization:
        return whole
    head = model.get_output_embeddings()
    linears = [module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    saved = sum(weight.nbytes - weight.numel() * WEIGHT_BYTES[quantization] for weight in linears)
    return whole - int(saved)


def check_fits(name: str, dtype: DType, needed: int, free: int, device: str) -> None:
    """Raise ConfigError where the weights of the base `name`, `needed` bytes, are more than `device` has `free`."""
    if needed <= free:
        return
    narrower = "--dtype bfloat16, " if dtype == "float32" else ""
    raise ConfigError(
        f"the weights of {name} in {dtype} take {_gib(needed)} and {device} has {_gib(free)} free; give "
        f"{narrower}--quantize nf4, a smaller base, another card, or --device cpu"
    )


def check_trains(parameters: int, values: int, free: int, device: str) -> None:
    """Raise ConfigError where `parameters` trained in float32 are more than `device` has `free`.

    `values` are held of each: its weight, its gradient and what its optimizer keeps.
    """
    needed = 4 * values * parameters
    if needed > free:
        raise ConfigError(
            f"{parameters:,} parameters take {_gib(needed)} with their gradients and the optimizer's state, and "
            f"{device} has {_gib(free)} free; give --parallel fsdp on several cards, a smaller model, or another card"
        )


def _why_no_cuda() -> str:
    """What torch says of its CUDA; empty for a torch without, or where it works."""
    if torch.version.cuda is None:
        return ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return str(error)
    return ""


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"
