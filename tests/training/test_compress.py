"""Compression: the nearest product of a smaller rank, the same output, and figures measured anew."""

import pytest
import torch

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from foresay.models.masks.lora import GatedLora
from foresay.training.compress import compress
from tests.support.toys import LLAMA, own_output, random_prompts, redraw, with_adapter

PROMPTS = [Prompt(ids, domain, "") for ids, domain in zip(random_prompts((5, 9)), ("one", "other"))]


def product(pair: GatedLora) -> torch.Tensor:
    return pair.scale * pair.up.detach().double() @ pair.down.detach().double()


def wide() -> MultiTokenModel:
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy")


def test_the_nearest_product_is_kept() -> None:
    core = wide().mask_model
    small = compress(MultiTokenModel(core, None, "toy"), 2, PROMPTS).mask_model
    for pair, narrow in zip(core.adapter.pairs, small.adapter.pairs, strict=True):
        left, values, right = torch.linalg.svd(product(pair), full_matrices=False)
        nearest = left[:, :2] * values[:2] @ right[:2]
        assert torch.allclose(product(narrow), nearest, atol=1e-5)
        assert narrow.scale == pair.scale, "alpha shrinks with the rank"


def test_a_rank_that_suffices_loses_nothing() -> None:
    model = wide()
    for pair in model.mask_model.adapter.pairs:
        pair.up.data[:, 2:] = 0
    products = [product(pair) for pair in model.mask_model.adapter.pairs]
    small = compress(model, 2, PROMPTS).mask_model
    for before, narrow in zip(products, small.adapter.pairs, strict=True):
        assert torch.allclose(product(narrow), before, atol=1e-5)


def test_masks_sampler_and_output_stay_and_acceptance_is_measured_anew() -> None:
    model = wide()
    model.acceptance = (0.5, 0.25, 0.125)
    small = compress(model, 1, PROMPTS)
    assert torch.equal(small.mask_model.adapter.mask_embeddings, model.mask_model.adapter.mask_embeddings)
    for one, other in zip(small.mask_model.adapter.sampler.parameters(), model.mask_model.adapter.sampler.parameters()):
        assert torch.equal(one, other)
    prompts = [prompt.ids for prompt in PROMPTS]
    said = small.decode(prompts, DecodeConfig(layout="quadratic", max_new_tokens=20))
    assert [answer.tokens for answer in said] == [own_output(LLAMA, ids, len(ids) + 20) for ids in prompts]
    assert small.acceptance != (0.5, 0.25, 0.125)
    assert small.provenance["compressed_from_rank"] == 4
    assert small.provenance["tokens_per_step"].keys() == {"one", "other"}


@pytest.mark.parametrize("rank", [0, 4, 5])
def test_only_a_smaller_rank_is_taken(rank: int) -> None:
    with pytest.raises(ConfigError, match=f"rank {rank} was asked for and the adapter has 4"):
        compress(wide(), rank, PROMPTS)


def test_the_default_scale_of_one_stays() -> None:
    core = with_adapter(LLAMA.model(), masks=2)
    config = MTPConfig(num_masks=2, rank=4)
    plain = type(core).from_base(core.model, config)
    redraw(plain.adapter, 3)
    small = compress(MultiTokenModel(plain, None, "toy"), 2, PROMPTS)
    assert (small.config.alpha, small.config.scale) == (0.0, 1.0)
