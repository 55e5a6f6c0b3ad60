"""Compiled steps say the same tokens, and a layout is compiled once for a batch size, not for every length.

Tracing decides when a step is compiled anew, and takes a second; C++ for what was traced takes half a minute. One case
makes both, the others are traced and run as they were traced. With FORESAY_SLOW_TESTS every case is compiled to C++.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
import torch

from foresay.decoding.config import DecodeConfig, FixedLayout
from foresay.decoding.generate import generate
from foresay.foundation.errors import ConfigError
from foresay.models.base import compiling
from tests.support.toys import GEMMA3, LLAMA, Toy, adapted, own_output, random_prompts

SLOW = bool(os.environ.get("FORESAY_SLOW_TESTS"))
CASES: tuple[tuple[Toy, FixedLayout, int], ...] = (
    (LLAMA, "plain", 0),
    (GEMMA3, "linear", 2),
    (LLAMA, "quadratic", 2),
    (LLAMA, "tree", 2),
)
"""Each layout once, and a base whose layers see differently."""
IN_CPP: FixedLayout = "quadratic"
"""The layout that is always compiled to C++: masks, drafts, and the gate in one step."""
NEW = 20


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    for toy in (LLAMA, GEMMA3):
        adapted(toy).compile_steps(False)


def trace_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.compile trace, and run what it traced."""
    compile = torch.compile

    @wraps(compile)
    def traced(function: Callable[..., Any], *, options: dict[str, Any], **more: Any) -> Callable[..., Any]:
        return compile(function, backend="eager", **more)

    monkeypatch.setattr(torch, "compile", traced)


def say(toy: Toy, layout: FixedLayout, masks: int, lengths: tuple[int, ...], compile: bool = True) -> None:
    prompts = random_prompts(lengths)
    config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=NEW, compile=compile)
    said = generate(adapted(toy), prompts, config)
    assert [g.tokens for g in said] == [own_output(toy, prompt, len(prompt) + NEW) for prompt in prompts]


@pytest.mark.parametrize(("toy", "layout", "masks"), CASES, ids=str)
def test_compiled_steps_say_the_same(
    toy: Toy, layout: FixedLayout, masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SLOW and layout != IN_CPP:
        trace_only(monkeypatch)
    say(toy, layout, masks, (5,))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs
    say(toy, layout, masks, (12,))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "compiled again for another length"


def test_compiled_batches_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not SLOW:
        trace_only(monkeypatch)
    say(LLAMA, "quadratic", 1, (4, 9))


def test_eager_steps_come_back() -> None:
    say(LLAMA, "plain", 0, (5,), compile=False)
    assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_shapes_are_limited_where_torch_has_one_limit_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before torch 2.13, whose `compile` took no limit."""

    def older(function: Callable[[], int], *, fullgraph: bool, options: dict[str, bool]) -> Callable[[], int]:
        return function

    monkeypatch.setattr(torch, "compile", older)
    before = torch._dynamo.config.recompile_limit
    compiled = compiling.compile_for(lambda: torch._dynamo.config.recompile_limit, torch.device("cpu"))
    assert {compiled(), compiled()} == {compiling.SHAPES}
    assert torch._dynamo.config.recompile_limit == before


def test_no_compiler_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler"):
        compiling.check_compiler(torch.device("cpu"))
    compiling.check_compiler(torch.device("cuda"))
