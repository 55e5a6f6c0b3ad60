"""Steps replayed as CUDA graphs are to the bit those that the host launches, and wait for the device once."""

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from foresay.decoding.config import DecodeConfig, LayoutName, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.requests import Request
from foresay.decoding.sampling.chooser import Chooser, Greedy, Sampled
from foresay.decoding.sampling.logits_processors import Processing, warpers
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.session import Session
from foresay.models.base import slot_attention
from foresay.models.masks.model import MaskModel
from tests.support.checks import NEW
from tests.support.toys import (
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    MIXTRAL,
    PHI3_LONGROPE,
    Toy,
    own_output,
    random_prompts,
    with_adapter,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device, and these laws are of CUDA graphs"
)
LAYOUTS: list[LayoutName] = ["plain", "linear", "quadratic", "tree"]
SAMPLE = SampleConfig(temperature=0.9, top_k=40, top_p=0.95)
CHOOSERS: dict[str, Callable[[int], Chooser]] = {
    "greedy": lambda sequences: Greedy(),
    "sampled": lambda sequences: Sampled(SeededNumbers(0, range(sequences)), Processing(warpers(SAMPLE))),
    "sampled, best drafts": lambda sequences: Sampled(
        SeededNumbers(0, range(sequences)), Processing(warpers(SAMPLE)), greedy_drafts=True
    ),
}


class Launched:
    """A recorder whose work the host launches every time."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        return work


@lru_cache
def on_card(toy: Toy, dtype: torch.dtype = torch.float32) -> MaskModel:
    return with_adapter(toy.model().to("cuda", dtype), masks=4)


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    yield
    for toy in (LLAMA, GEMMA3, GPT2, MISTRAL_WINDOW, MIXTRAL, PHI3_LONGROPE):
        on_card(toy).record_steps(False)


def opened(model: MaskModel, lengths: tuple[int, ...], config: DecodeConfig, chooser: Chooser) -> Session:
    return Session(model, random_prompts(lengths), config, chooser)


def held(session: Session) -> list[Tensor]:
    """What the next step begins with."""
    used = session.cache.placement.used
    slots = [part[: len(session.live), :, :used] for some in session.cache.layers for part in (some.keys, some.values)]
    drawn = [] if session.pending.q is None else [session.pending.q]
    return [session.pending.tokens, *drawn, *slots]


@pytest.mark.parametrize("chooser", CHOOSERS.values(), ids=CHOOSERS.keys())
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lengths", [(5,), (9, 2, 4), (7, 4, 1, 6, 13, 5, 2, 3)], ids=len)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_replayed_is_launched(
    lengths: tuple[int, ...], layout: LayoutName, chooser: Callable[[int], Chooser], dtype: torch.dtype
) -> None:
    model, config = on_card(LLAMA, dtype), DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    model.record_steps()
    replayed = opened(model, lengths, config, chooser(len(lengths)))
    model._recorder = Launched()
    launched = opened(model, lengths, config, chooser(len(lengths)))
    assert replayed.cache is not launched.cache
    while replayed.live:
        assert replayed.step() == launched.step()
        if replayed.live:
            for mine, theirs in zip(held(replayed), held(launched), strict=True):
                assert torch.equal(mine, theirs)
    assert replayed.graphs is not None
    assert replayed.graphs._steps, "nothing was replayed"
    model.record_steps(False)


@pytest.mark.parametrize("layout", [*LAYOUTS, "planned"])
@pytest.mark.parametrize("toy", [LLAMA, GEMMA3, GPT2, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_replayed_steps_say_what_plain_decoding_says(toy: Toy, layout: LayoutName) -> None:
    model, config = on_card(toy), DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    for lengths in ((5,), (9, 2, 4)):
        prompts = random_prompts(lengths)
        expected = [own_output(toy, prompt, len(prompt) + NEW) for prompt in prompts]
        assert [said.tokens for said in generate(model, prompts, config)] == expected


@pytest.mark.parametrize("chooser", CHOOSERS.values(), ids=CHOOSERS.keys())
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_replayed_step_waits_once(layout: LayoutName, chooser: Callable[[int], Chooser]) -> None:
    model, config = on_card(LLAMA), DecodeConfig(layout=layout, masks=3, max_new_tokens=60)
    model.record_steps()
    for _ in range(2):
        session, waits = opened(model, (9, 2, 4), config, chooser(3)), []
        while len(session.live) == 3:
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    session.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
            waits.append(sum("synchronizing" in str(one.message) for one in said))
        del session
    assert waits[-8:-1] == [1] * 7, waits


def test_answers_that_come_and_go() -> None:
    requests = [Request(prompt, 10 + 7 * place) for place, prompt in enumerate(random_prompts((5, 9, 3, 12, 8, 4)))]
    engine = Engine(on_card(LLAMA), DecodeConfig(layout="quadratic", masks=3), QueueConfig(sequences=4, max_length=128))
    waiting, said = list(requests), dict[int, list[int]]()
    while waiting or engine.busy:
        if waiting:
            engine.submit([waiting.pop(0)])
        for progress in engine.step():
            said.setdefault(progress.ticket, []).extend(progress.step.tokens)
    expected = [own_output(LLAMA, request.prompt, len(request.prompt) + request.max_tokens) for request in requests]
    assert [said[ticket] for ticket in sorted(said)] == expected


@pytest.mark.parametrize("toy", [MIXTRAL, PHI3_LONGROPE], ids=lambda toy: toy.name)
def test_what_waits_for_the_device_is_launched_and_nothing_is_broken(toy: Toy) -> None:
    model, config = on_card(toy), DecodeConfig(layout="linear", masks=3, max_new_tokens=NEW)
    [prompt] = random_prompts((5,))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        [generation] = generate(model, [prompt], config)
    assert generation.tokens == own_output(toy, prompt, len(prompt) + NEW)
    assert not model.recordable or not any("cannot be recorded" in str(one.message) for one in said)
    # CUDA's own random numbers and the next recording are as before.
    assert torch.randn(3, device="cuda").isfinite().all()
    [other] = generate(on_card(LLAMA), [prompt], config)
    assert other.tokens == own_output(LLAMA, prompt, len(prompt) + NEW)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 9, 25])
def test_grouped_queries_read_keys_where_they_lie(rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator("cuda").manual_seed(rows)
    query = torch.randn(3, 8, rows, 64, generator=generator, device="cuda", dtype=dtype)
    key, value = torch.randn(2, 3, 2, 512, 64, generator=generator, device="cuda", dtype=dtype)
    mask = torch.rand(3, 1, rows, 512, generator=generator, device="cuda") < 0.5
    mask[..., 0] = True
    ours, _ = slot_attention.attend(torch.nn.Module(), query, key, value, mask)
    repeated = (states.double().repeat_interleave(4, dim=1) for states in (key, value))
    exact = torch.nn.functional.scaled_dot_product_attention(query.double(), *repeated, mask).transpose(1, 2)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert (ours - exact).abs().max() <= tolerance * exact.abs().max()
