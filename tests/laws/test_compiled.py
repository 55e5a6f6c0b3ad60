"""Steps with compiled layers say the same tokens, and a kind of layer is compiled once, whatever a step looks like.

Tracing decides what is compiled anew, and takes a second; C++ for what was traced takes ten. One case makes both, the
others are traced and run as they were traced. With FORESAY_SLOW_TESTS every case is compiled to C++.
"""

import os
from collections.abc import Iterator

import pytest
import torch

from foresay.decoding.config import DecodeConfig, FixedLayout
from foresay.decoding.generate import generate
from foresay.foundation.errors import ConfigError
from foresay.models.base import compiled_code
from foresay.models.masks.model import MaskModel
from tests.support.toys import GEMMA3, LLAMA, TOYS, Toy, adapted, own_output, random_prompts, with_adapter

SLOW = bool(os.environ.get("FORESAY_SLOW_TESTS"))
LAYOUTS: tuple[tuple[FixedLayout, int], ...] = (("plain", 0), ("linear", 2), ("quadratic", 2), ("tree", 2))
REFUSED = {
    **dict.fromkeys(("gemma2", "gpt-oss"), "attention 'eager' takes no other"),
    "falcon": "takes no other",
    **dict.fromkeys(("deepseek3", "minicpm3"), "keeps latents"),
}
"""Toys whose layers cannot be compiled, and what the refusal says."""
FEW = ("qwen3-moe", "gpt2", "gpt-neox", "phi3-longrope", "exaone4")
"""Toys that stand for the others without FORESAY_SLOW_TESTS."""
NEW = 20


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what was traced as it was traced."""
    if not SLOW:
        monkeypatch.setattr(compiled_code, "lower", lambda graph, inputs: graph)


def say(model: MaskModel, toy: Toy, layout: FixedLayout, masks: int, lengths: tuple[int, ...]) -> None:
    prompts = random_prompts(lengths)
    said = generate(model, prompts, DecodeConfig(layout=layout, masks=masks, max_new_tokens=NEW, compile=True))
    assert [g.tokens for g in said] == [own_output(toy, prompt, len(prompt) + NEW) for prompt in prompts]


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_layers_compiled_to_cpp_say_the_same(packed: bool) -> None:
    model = with_adapter(LLAMA.model())
    model.packing.want("on" if packed else "off")
    for layout, masks in LAYOUTS:
        say(model, LLAMA, layout, masks, (5,))
    assert graphs() == 2


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("toy", "kinds"), [(LLAMA, 1), (GEMMA3, 2)], ids=str)
def test_a_kind_of_layer_is_compiled_once_for_all_steps(toy: Toy, kinds: int) -> None:
    model = with_adapter(toy.model())
    model.compile_steps()
    assert graphs() == 2 * kinds, "one row, and several"
    for layout, masks in LAYOUTS:
        say(model, toy, layout, masks, (5,))
        say(model, toy, layout, masks, (12,))
    assert graphs() == 2 * kinds, "compiled again for a layout or a length"
    say(model, toy, "quadratic", 2, (4, 9, 6))
    say(model, toy, "linear", 3, (4, 9))
    assert graphs() <= 4 * kinds, "the same for several sequences"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("toy", [toy for toy in TOYS if SLOW or toy.name in {*FEW, *REFUSED}], ids=lambda toy: toy.name)
def test_every_base_says_the_same_or_is_refused_in_words(toy: Toy) -> None:
    model = with_adapter(toy.model())
    if toy.name in REFUSED:
        with pytest.raises(ConfigError, match=f"compiled steps were asked for.*{REFUSED[toy.name]}"):
            model.compile_steps()
        assert not model.compiles
    else:
        say(model, toy, "quadratic", 2, (5,))


@pytest.mark.usefixtures("traced")
def test_layers_are_left_as_they_were_found() -> None:
    model = with_adapter(LLAMA.model())
    before = [sorted(vars(layer)) for layer in model.base.decoder_layers()]
    say(model, LLAMA, "quadratic", 2, (5,))
    assert [sorted(vars(layer)) for layer in model.base.decoder_layers()] == before


@pytest.mark.usefixtures("traced")
def test_what_a_layer_holds_may_change_later() -> None:
    """Parameters are handed in when a layer runs, so compiled layers follow a base that is trained or moved."""
    model = with_adapter(LLAMA.model())
    prompts = random_prompts((5,))
    config = DecodeConfig(layout="quadratic", masks=2, max_new_tokens=NEW)
    compiled = DecodeConfig(layout="quadratic", masks=2, max_new_tokens=NEW, compile=True)
    before = generate(model, prompts, compiled)
    with torch.no_grad():
        for parameter in model.base.model.parameters():
            parameter.mul_(1.2)
    after = generate(model, prompts, compiled)
    assert [g.tokens for g in after] == [g.tokens for g in generate(model, prompts, config)]
    assert [g.tokens for g in after] != [g.tokens for g in before]


def test_eager_steps_come_back() -> None:
    generate(adapted(LLAMA), random_prompts((5,)), DecodeConfig(layout="plain", max_new_tokens=NEW))
    assert not graphs()
