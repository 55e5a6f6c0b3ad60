"""Whatever a layout of one's own draws, the output is the base's."""

from collections.abc import Iterator
from typing import cast

import pytest

from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.foundation.errors import ConfigError
from foresay.foundation.names import OWN_LAYOUTS
from foresay.models.layout.layout import DRAWINGS, Layout, add_layout
from foresay.models.masks.model import MaskModel
from tests.laws.test_sampling import check_exact, mtp
from tests.support.checks import NEW, check_drafter_changes_nothing, sometimes_right
from tests.support.toys import GEMMA2, GPT2, LLAMA, Toy, adapted

__all__ = ["mtp"]


def ends(real: int, masks: int) -> Layout:
    return Layout.training(real, (0, real - 1), masks)


def every_other(real: int, masks: int) -> Layout:
    return Layout.training(real, tuple(range(0, real, 2)), masks)


@pytest.fixture(params=[ends, every_other], ids=lambda draw: draw.__name__)
def layout(request: pytest.FixtureRequest) -> Iterator[LayoutName]:
    name = f"own {request.param.__name__}"
    add_layout(name, request.param)
    yield cast(LayoutName, name)
    del DRAWINGS[name]
    OWN_LAYOUTS.remove(name)


@pytest.mark.parametrize("masks", [1, 3])
@pytest.mark.parametrize("toy", [LLAMA, GEMMA2, GPT2], ids=lambda toy: toy.name)
def test_greedy_output_is_plains(toy: Toy, layout: LayoutName, masks: int) -> None:
    config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=NEW)
    generations = check_drafter_changes_nothing(adapted(toy), toy, config, sometimes_right)
    assert any(step.accepted for generation in generations for step in generation.steps)


def test_sampled_output_has_the_bases_distribution(mtp: MaskModel, layout: LayoutName) -> None:
    check_exact(mtp, layout)


@pytest.mark.parametrize("name", ["linear", "planned"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"layout '{name}' is there already; give another name"):
        add_layout(name, ends)


def test_a_drawing_that_loses_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="draws 2 real rows of 3; keep all of them"):
        add_layout("short", lambda real, masks: Layout.linear(real - 1, masks))
    assert "short" not in DRAWINGS


def test_an_unknown_layout_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"layout is 'mine'; give one of plain, linear, quadratic, tree, planned$"):
        DecodeConfig(layout=cast(LayoutName, "mine"))
