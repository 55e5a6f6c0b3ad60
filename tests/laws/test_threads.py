"""Threads that share a model: each answer is what it would be alone, with transformers' own `generate` beside it."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from foresay.model import MultiTokenModel
from tests.support.toys import LLAMA, MISTRAL_WINDOW, VOCABULARY, Toy, pristine, random_prompts, with_adapter

LENGTH = 40
PROMPTS = [torch.tensor([prompt]) for prompt in random_prompts([5, 9, 13])]
SETTINGS: dict[str, Any] = {"max_length": LENGTH, "do_sample": False, "pad_token_id": 0}


def tasks(model: MultiTokenModel, prompt: Tensor) -> list[Callable[[], Any]]:
    """The same answer in several ways, the base's own among them."""
    mask = {"attention_mask": torch.ones_like(prompt)}
    return [
        *(lambda layout=layout: model.generate(prompt, layout=layout, **SETTINGS, **mask)
          for layout in ("plain", "linear", "quadratic")),
        lambda: model.base.model.generate(prompt, custom_generate=model, **SETTINGS, **mask),
        lambda: model.base.model.generate(prompt, **SETTINGS, **mask),
    ]  # fmt: skip


@pytest.mark.parametrize("toy", [LLAMA, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_each_thread_gets_the_answer_of_one_alone(toy: Toy) -> None:
    model = MultiTokenModel(with_adapter(toy.model()), None, toy.name)
    work = [task for prompt in PROMPTS for task in tasks(model, prompt)] * 2
    each = len(work) // len(PROMPTS) // 2
    own = [
        pristine(toy).generate(p, attention_mask=torch.ones_like(p), **SETTINGS) for p in PROMPTS for _ in range(each)
    ]
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda task: task(), work))
    for ours, theirs in zip(said, own * 2, strict=True):
        assert torch.equal(ours, theirs)


def test_a_forward_that_fails_lets_the_next_thread_in() -> None:
    model = with_adapter(LLAMA.model()).model
    with pytest.raises(IndexError):
        model(torch.tensor([[VOCABULARY + 7]]))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: model(PROMPTS[0]).logits.shape[1]).result(timeout=60) == PROMPTS[0].shape[1]


def test_copies_and_two_adapters_of_one_base_do_not_wait_for_each_other_for_ever() -> None:
    base = LLAMA.model()
    both = [MultiTokenModel(with_adapter(base, seed=seed), None, "llama") for seed in (1, 2)]
    assert both[0].base.turn is both[1].base.turn
    for model in both:
        model.close()
    apart = MultiTokenModel(with_adapter(copy.deepcopy(base)), None, "llama")
    assert apart.base.turn is not both[0].base.turn
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda model: model.generate(PROMPTS[0], layout="quadratic", **SETTINGS), [*both, apart]))
    assert all(torch.equal(said[0], other) for other in said)
