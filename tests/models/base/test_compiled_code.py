"""Code that was compiled for one call serves calls of other sizes, or is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foresay.models.base import compiled_code
from foresay.models.base.compiled_code import Compiler


@pytest.fixture(autouse=True)
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what was traced as it was traced."""
    monkeypatch.setattr(compiled_code, "lower", lambda graph, inputs: graph)


class Scale(nn.Module):
    """The simplest layer: a weight, positions, and whatever else is given back."""

    def __init__(self, *more: Any) -> None:
        super().__init__()
        self.weight, self.more = nn.Parameter(torch.ones(3), requires_grad=False), more

    def forward(self, states: Tensor, positions: Tensor, flag: bool = False) -> Any:
        scaled = states * self.weight + positions
        return (scaled, *self.more) if self.more else scaled


class AddsSetting(nn.Module):
    def __init__(self, setting: float) -> None:
        super().__init__()
        self.setting = setting

    def forward(self, states: Tensor) -> Tensor:
        return states + self.setting


class OnlyForFew(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states * 2 if states.shape[1] < 6 else states


class RowsAreSequences(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states + states.transpose(0, 1)


def test_one_case_serves_every_number_of_rows_and_every_layer() -> None:
    first, second = Scale(), Scale()
    second.weight.mul_(2)
    code, output = Compiler(first).compiled((torch.ones(2, 3, 3), torch.zeros(2, 3, 3)), {"flag": True})
    assert torch.equal(output, torch.ones(2, 3, 3))
    states, positions = torch.randn(4, 9, 3), torch.randn(4, 9, 3)
    assert torch.equal(code(second, (states, positions), {"flag": True}), 2 * states + positions)


def test_layers_of_other_widths_and_settings_are_compiled_apart() -> None:
    """torch takes what differs from an earlier call of the same code for something that changes."""
    for width, more in ((3, 0.5), (5, 0.25), (7, 0.125)):
        layer = AddsSetting(more)
        code, output = Compiler(layer).compiled((torch.ones(2, 4, width),), {})
        assert torch.equal(output, torch.full((2, 4, width), 1 + more))
        assert torch.equal(code(layer, (torch.ones(3, 6, width),), {}), torch.full((3, 6, width), 1 + more))


@pytest.mark.parametrize("more", [(), (None,)], ids=["states", "a tuple"])
def test_what_a_layer_gives_keeps_its_form(more: tuple[None, ...]) -> None:
    layer, inputs = Scale(*more), (torch.ones(1, 4, 3), torch.zeros(1, 4, 3))
    code, output = Compiler(layer).compiled(inputs, {})
    again = code(layer, inputs, {})
    assert isinstance(output, tuple) == isinstance(again, tuple) == bool(more)
    assert not more or again[1] is None


def test_a_layer_that_gives_more_than_states_is_refused() -> None:
    inputs = (torch.ones(1, 4, 3), torch.zeros(1, 4, 3))
    with pytest.raises(NotImplementedError, match="gives more than its states"):
        Compiler(Scale(torch.ones(2))).compiled(inputs, {})


@pytest.mark.parametrize("layer", [OnlyForFew(), RowsAreSequences()], ids=lambda layer: type(layer).__name__)
def test_code_for_some_numbers_of_rows_is_refused(layer: nn.Module) -> None:
    """Nothing else would notice: compiled code is called without the guards of torch.compile."""
    with pytest.raises(Exception, match="holds only for some numbers of rows"):
        Compiler(layer).compiled((torch.ones(4, 4, 3),), {})
