"""Which layers are alike, and what is refused before anything is compiled."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foresay.foundation.errors import ConfigError
from foresay.models.base import compiled_code, compiling
from foresay.models.base.compiling import kind_of
from tests.support.toys import GEMMA2, GEMMA3, LLAMA, Toy, with_adapter


@pytest.mark.parametrize(("toy", "layers", "kinds"), [(LLAMA, 3, 1), (GEMMA3, 2, 2)], ids=str)
def test_layers_are_of_few_kinds(toy: Toy, layers: int, kinds: int) -> None:
    base = with_adapter(toy.model(num_hidden_layers=layers)).base
    assert len({kind_of(layer) for layer in base.decoder_layers()}) == kinds


def test_layers_with_other_settings_are_of_another_kind() -> None:
    first, second = with_adapter(LLAMA.model()).base.decoder_layers()
    second.input_layernorm.variance_epsilon *= 2
    assert kind_of(first) != kind_of(second)


class ScaledByIndex(nn.Module):
    """An MLP that does with the index of its layer what a pattern cannot know."""

    def __init__(self, inner: nn.Module, layer_idx: int) -> None:
        super().__init__()
        self.inner, self.layer_idx = inner, layer_idx

    def forward(self, states: Tensor) -> Tensor:
        scaled: Tensor = self.inner(states) * (1 + self.layer_idx)
        return scaled


def test_a_layer_that_uses_its_index_is_refused() -> None:
    model = LLAMA.model()
    for index, layer in enumerate(model.model.layers):
        layer.mlp = ScaledByIndex(layer.mlp, index)
    with pytest.raises(ConfigError, match="gives other states than the layer itself; leave out --compile"):
        with_adapter(model).compile_steps()


def test_an_attention_that_takes_no_other_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"with attention 'eager' takes no other.*leave out --compile"):
        with_adapter(GEMMA2.model()).compile_steps()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_somebodys_hook_is_refused(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_code, "lower", lambda graph, inputs: graph)
    model = with_adapter(LLAMA.model())
    if not before:
        model.compile_steps()
    model.base.decoder_layers()[1].mlp.register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match="something stands around mlp of Llama"):
        model.compile_steps()


def test_layers_of_many_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "KINDS", 1)
    with pytest.raises(ConfigError, match="2 layers of Gemma3ForCausalLM are of 2 kinds"):
        with_adapter(GEMMA3.model()).compile_steps()


def test_what_cannot_be_compiled_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: Any, **named: Any) -> Any:
        raise RuntimeError("no C++ today\nand a long trace")

    monkeypatch.setattr(torch, "compile", lambda *args, **named: breaks)
    model = with_adapter(LLAMA.model())
    with pytest.raises(ConfigError, match=r"layers of LlamaForCausalLM cannot be compiled \(no C\+\+ today\); leave"):
        model.compile_steps()
    assert not model.compiles


def test_no_compiler_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler"):
        compiling.check_compiler(torch.device("cpu"))
    compiling.check_compiler(torch.device("cuda"))
