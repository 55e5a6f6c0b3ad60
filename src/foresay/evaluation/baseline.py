"""What everything is compared with: transformers' own `generate`, greedy or sampled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.stopping_criteria import StoppingCriteria

from foresay.decoding.config import SampleConfig
from foresay.model import MultiTokenModel

KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "cache_implementation")
"""Of a base's generation config what a comparison keeps."""


class Hearing(StoppingCriteria):  # type: ignore[misc]
    """Hears of every step of transformers' decoding and stops none."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self.heard = heard

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        self.heard()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def without_own_rules(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the base's generation config says nothing but stop tokens and cache.

    Beams, penalties, stop strings, shapes of the result: both sides are compared without them.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in KEPT})
    try:
        yield
    finally:
        model.generation_config = own


def plain_answer(model: MultiTokenModel, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
    """The base's greedy answer to one prompt, by transformers alone, within the base's context."""
    return plain_answers(model, [prompt], max_new_tokens)[0]


def plain_answers(
    model: MultiTokenModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    lookup_tokens: int = 0,
    heard: Callable[[], None] | None = None,
    length: int = 0,
    **settings: Any,
) -> list[list[int]]:
    """Greedy answers to a batch (padded on the left, to `length` tokens or more), each cut after its stop token.

    `lookup_tokens` are drafted from the prompt in each step (transformers' prompt lookup, one prompt only); `heard` is
    called after every step; `settings` are further arguments of transformers' `generate`.
    """
    base = model.base
    longest = max(length, *map(len, prompts))
    pad = next(iter(base.stop_tokens), 0)
    ids = torch.tensor([[*[pad] * (longest - len(prompt)), *prompt] for prompt in prompts], device=base.device)
    lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=base.device)
    mask = torch.arange(longest, device=base.device) >= longest - lengths
    model.close()  # the baseline is the base as it was found
    with without_own_rules(base.model):
        said = base.model.generate(
            ids,
            attention_mask=mask.long(),
            do_sample=False,
            max_new_tokens=min(max_new_tokens, base.context - longest),
            pad_token_id=pad,
            prompt_lookup_num_tokens=lookup_tokens or None,
            stopping_criteria=[Hearing(heard)] if heard else None,
            **settings,
        )
    return [_until_stop(tokens, base.stop_tokens) for tokens in said[:, longest:].tolist()]


def sampled_answers(
    model: MultiTokenModel, prompt: Sequence[int], sample: SampleConfig, count: int, max_new_tokens: int
) -> list[list[int]]:
    """`count` answers to one prompt, drawn together by transformers alone, each cut after its stop token.

    torch's global generator is left as it was.
    """
    base = model.base
    ids = torch.tensor([prompt], device=base.device)
    model.close()
    forked = torch.random.fork_rng([base.device] if base.device.type == "cuda" else [])
    with forked, without_own_rules(base.model):
        torch.manual_seed(sample.seed)
        said = base.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            num_return_sequences=count,
            temperature=sample.temperature,
            top_k=sample.top_k,
            top_p=sample.top_p,
            min_p=sample.min_p,
            max_new_tokens=min(max_new_tokens, base.context - len(prompt)),
            pad_token_id=next(iter(base.stop_tokens), 0),
        )
    return [_until_stop(tokens, base.stop_tokens) for tokens in said[:, len(prompt) :].tolist()]


def _until_stop(tokens: list[int], stops: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens, 1) if token in stops), len(tokens))
    return tokens[:end]
