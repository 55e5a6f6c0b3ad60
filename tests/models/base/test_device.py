"""Devices, dtypes and room for a base: decided, and refused in one sentence, before anything is loaded."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.base import load
from foresay.models.base.device import (
    WEIGHT_BYTES,
    check_fits,
    check_trains,
    device_for,
    dtype_for,
    refusal,
    weight_bytes,
)
from foresay.models.base.load import base_folder, chosen_dtype, load_base
from foresay.models.config import DType, HeadsConfig, LoadConfig, LoadDType
from tests.support.toys import FALCON, LLAMA

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)


def processor(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """One with bfloat16 products, or one without."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})


# Which dtype.


@pytest.mark.parametrize(
    ("asked", "own", "device", "native", "chosen"),
    [
        ("auto", "bfloat16", "cuda", False, "bfloat16"),
        ("auto", "float16", "cuda", False, "float16"),
        ("auto", "float32", "cuda", False, "float32"),
        ("auto", "bfloat16", "cpu", False, "float32"),
        ("auto", "bfloat16", "cpu", True, "bfloat16"),
        ("auto", "float16", "cpu", True, "float32"),
        ("auto", "float32", "cpu", True, "float32"),
        ("float32", "bfloat16", "cuda", True, "float32"),
        ("bfloat16", "float32", "cpu", False, "bfloat16"),
    ],
)
def test_auto_is_what_the_device_is_good_at(
    asked: LoadDType, own: DType, device: str, native: bool, chosen: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, native)
    assert dtype_for(asked, own, torch.device(device)) == chosen


@pytest.mark.parametrize(("native", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_a_base_is_opened_as_auto_says(native: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """nano's checkpoint is in bfloat16; what it is called does not depend on what it is opened in."""
    before = MultiTokenModel.from_pretrained("nano").fingerprints()
    processor(monkeypatch, native)
    model = MultiTokenModel.from_pretrained("nano")
    assert (model.dtype_name, model.described["dtype"]) == (dtype, dtype)
    assert model.loaded == f"nano in {dtype} on cpu"
    assert model.fingerprints() == before
    assert (chosen_dtype("nano", "auto", "cpu"), chosen_dtype("nano", "auto", "cuda")) == (dtype, "bfloat16")
    assert MultiTokenModel.from_pretrained("nano", dtype="float32").dtype_name == "float32"


def test_a_base_in_half_precision_is_the_same_in_float32(tmp_path: Path) -> None:
    LLAMA.model().half().save_pretrained(tmp_path / "half")
    opened = [MultiTokenModel.from_base(load_base(str(tmp_path / "half"), dtype)) for dtype in ("auto", "float16")]
    assert [model.dtype_name for model in opened] == ["float32", "float16"]
    assert opened[0].fingerprints() == opened[1].fingerprints()


def test_heads_are_trained_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor where another adapter's base would be bfloat16."""
    processor(monkeypatch, True)
    assert MultiTokenModel.from_base("nano", HeadsConfig(heads=2)).dtype_name == "float32"


# Which device.


NO_CUDA = "Torch not compiled with CUDA enabled"


@pytest.mark.parametrize(
    ("device", "why", "built_for", "said"),
    [
        ("cuda", NO_CUDA, None, r"^device is 'cuda' and this torch \(.*\) is built without CUDA; install a build"),
        ("cuda:1", NO_CUDA, None, "^device is 'cuda:1' and this torch"),
        ("cuda", TOO_OLD, "13.0", r"speaks CUDA 12\.2 and this torch is built for CUDA 13\.0; update the driver"),
        ("cuda", "Found no NVIDIA driver on your system.", "13.0", r"\(Found no NVIDIA driver on your system\.\)"),
        ("cuda:7", "CUDA error: invalid device ordinal\nmore", "13.0", r"\(CUDA error: invalid device ordinal\); give"),
        ("gpu", "Expected one of cpu, cuda", "13.0", r"'gpu', which cannot be had here \(Expected one of cpu, cuda\)"),
        ("npu", "", None, "'npu', which cannot be had here"),
    ],
)
def test_a_device_that_cannot_be_had_is_refused(device: str, why: str, built_for: str | None, said: str) -> None:
    sentence = refusal(device, why, built_for)
    assert re.search(said, sentence)
    assert re.search("; .*, or (give )?--device cpu$", sentence)
    assert "\n" not in sentence


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match=r"^device is 'cuda'.*; .*or (give )?--device cpu$"):
        load_base("nano", loading=LoadConfig(device="cuda"))
    with pytest.raises(ConfigError, match=r"^device is 'nowhere'.*; give another one, or --device cpu$"):
        load_base("nano", loading=LoadConfig(device="nowhere"))
    assert device_for() == "cpu"


def test_a_driver_that_is_too_old_is_no_reason_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is what is left where there is no card; asked for, it is taken."""

    def init(why: str = TOO_OLD) -> None:
        raise RuntimeError(why)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(
        ConfigError, match=r"speaks CUDA 12\.2 and this torch is built for CUDA 13\.0; update the driver"
    ):
        device_for()
    assert device_for("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "init", lambda: init("Found no NVIDIA driver on your system."))
    assert device_for() == "cpu"


# Whether it fits.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_are_those_of_the_loaded_base(dtype: DType) -> None:
    loaded = sum(parameter.nbytes for parameter in load_base("nano", dtype).parameters())
    assert weight_bytes(AutoConfig.from_pretrained(base_folder("nano")), dtype) == loaded


@pytest.mark.parametrize("toy", [LLAMA, FALCON], ids=lambda toy: toy.name)
@pytest.mark.parametrize("how", WEIGHT_BYTES)
def test_quantised_linears_take_less(toy: Any, how: str) -> None:
    model = toy.model()
    head = model.get_output_embeddings()
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    count, whole = sum(m.weight.numel() for m in linears), sum(p.numel() for p in model.parameters())
    expected = 2 * (whole - count) + WEIGHT_BYTES[how] * count
    assert weight_bytes(model.config, "bfloat16", how) == pytest.approx(expected, abs=1)


def test_a_card_that_is_too_small_is_refused() -> None:
    said = r"the weights of my-8b in float32 take 29.92 GiB and cuda:1 has 7.50 GiB free; give --dtype bfloat16, "
    with pytest.raises(ConfigError, match=said):
        check_fits("my-8b", "float32", 32_121_044_992, 15 * 2**29, "cuda:1")
    with pytest.raises(ConfigError, match="free; give --quantize nf4, a smaller base, another card, or --device cpu"):
        check_fits("my-8b", "bfloat16", 16_060_522_496, 15 * 2**29, "cuda")
    check_fits("my-8b", "bfloat16", 15 * 2**29, 15 * 2**29, "cuda")


def test_a_card_that_is_too_small_for_pretraining_is_refused() -> None:
    said = r"^1,000,000,000 parameters take 14\.90 GiB with their .* cuda has 7\.50 GiB free; give --parallel fsdp on"
    with pytest.raises(ConfigError, match=said):
        check_trains(10**9, 4, 15 * 2**29, "cuda")
    check_trains(10**9, 3, 12 * 10**9, "cuda")


def card(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A card with so many bytes free, on which everything then lies on the CPU."""
    monkeypatch.setattr(load, "device_for", lambda asked: "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))


def test_nothing_is_loaded_for_a_card_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("it was loaded")

    card(monkeypatch, 10**6)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    with pytest.raises(ConfigError, match=r"the weights of nano in bfloat16 take 0.01 GiB and cuda has 0.00 GiB free"):
        load_base("nano")


def test_what_does_not_fit_after_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def to(self, device: str) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    card(monkeypatch, 10**12)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: Model())
    with pytest.raises(ConfigError, match=r"nano does not fit cuda \(CUDA out of memory. Tried .* GiB.\); free some"):
        load_base("nano")
