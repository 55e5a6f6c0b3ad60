"""Attention of decoding calls is transformers' own sdpa, whatever the shapes, masks and groups."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.models.base import slot_attention
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from tests.support.checks import NEW, assert_close, assert_says, expected_output, prompt_batches
from tests.support.toys import GEMMA3, GPT2, LLAMA, MISTRAL_WINDOW, Toy, adapted


def layer(groups: int) -> nn.Module:
    """What transformers' attention asks of the module that calls it."""
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = groups, True
    return module


def states(batch: int, heads: int, groups: int, rows: int, slots: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, and keys and values of the first slots of a cache that has more."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads * groups, rows, 8, generator=generator)
    stored = torch.randn(2, batch, heads, slots + 5, 8, generator=generator)
    return query, stored[0, :, :, :slots], stored[1, :, :, :slots]


@given(
    shape=st.tuples(*map(st.integers, (1, 1, 1, 1, 9), (3, 3, 4, 9, 40))),
    folded=st.sampled_from([1, 512]),
    scaling=st.sampled_from([None, 0.5]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_transformers_own(
    shape: tuple[int, int, int, int, int], folded: int, scaling: float | None, masked: bool, seed: int
) -> None:
    batch, _, groups, rows, slots = shape
    parts = states(*shape, seed=seed)
    mask = torch.rand(batch, 1, rows, slots, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[..., 0] = True
    shown = mask if masked or rows > 1 else None
    own, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](layer(groups), *parts, shown, scaling=scaling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slot_attention, "FOLDED_ROWS", folded)
        ours, _ = slot_attention.attend(layer(groups), *parts, shown, scaling=scaling)
    assert_close(ours, own, f"{groups} groups, {rows} rows")
    assert ours.is_contiguous()


@pytest.mark.parametrize("folded", [1, 512])
@pytest.mark.parametrize("groups", [1, 2])
def test_slots_in_front_of_every_window_are_not_read(groups: int, folded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_attention, "FOLDED_ROWS", folded)
    past, window, rows = torch.tensor([20, 14]), 6, 4
    call = Call(Layout.plain(rows), past, longest=20, shortest=14)
    query, key, value = states(2, 2, groups, rows, 24, 0)
    mask, first = call.visible(24, window), call.first_seen(window)
    assert first == 9
    assert not mask[..., :first].any()
    assert mask[..., first].any()
    whole, _ = slot_attention.attend(layer(groups), query, key, value, mask)
    key[:, :, :first], value[:, :, :first] = 1e4, torch.nan
    cut, _ = slot_attention.attend(layer(groups), query, key, value, mask[..., first:])
    assert_close(cut, whole, f"{groups} groups")
    assert Call(Layout.plain(rows), past).first_seen(window) == call.first_seen(None) == 0


@given(
    shape=st.tuples(*map(st.integers, (1, 1, 1, 1, 9), (3, 3, 4, 9, 40))),
    lengths=st.lists(st.integers(1, 30), min_size=3, max_size=3),
    scaling=st.sampled_from([None, 0.5]),
    window=st.sampled_from([None, 4]),
    seed=st.integers(0, 99),
)
def test_two_parts_are_one(
    shape: tuple[int, int, int, int, int], lengths: list[int], scaling: float | None, window: int | None, seed: int
) -> None:
    """Sequences of any lengths: what all of them have cached needs no mask, but for windows, which see other slots."""
    batch, _, _, rows, _ = shape
    past = torch.tensor(lengths[:batch])
    slots = max(lengths[:batch]) + rows
    query, key, value = states(*shape[:4], slots, seed=seed)
    mask = Call(Layout.plain(rows), past).visible(slots, window)
    shared = int(past.min()) if window is None else 0
    one, _ = slot_attention.attend(layer(shape[2]), query, key, value, mask, scaling)
    two = slot_attention.attend_in_parts(query, key, value, mask, shared, scaling)
    assert_close(two, one, f"{shape}, {lengths}")


DEEP = Toy("llama-deep", "Llama", {"num_hidden_layers": 4})
KINDS = ["sliding_attention", "full_attention"]
DEEP_MIXED = Toy("gemma3-deep", "Gemma3Text", {**GEMMA3.settings, "num_hidden_layers": 4, "layer_types": 2 * KINDS})


@pytest.mark.parametrize(("toy", "masks"), [(DEEP, 1), (DEEP_MIXED, 2)], ids=["alike", "windows"])
def test_a_mask_is_folded_once_a_call(toy: Toy, masks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many layers ask for it; after the call nothing is held."""
    mtp, folded, repeated = adapted(toy), [], slot_attention._repeated

    def noted(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
        folded.append(mask.shape)
        return repeated(mask, query, key)

    monkeypatch.setattr(slot_attention, "_repeated", noted)
    call = Call(Layout.quadratic(3, 2), torch.zeros(1, dtype=torch.int64))
    for _ in range(2):
        folded.clear()
        mtp.see(torch.arange(3)[None], call, mtp.cache(40, 2), 1)
        assert len(folded) == masks
        assert slot_attention.FOLDED._known is None


@pytest.mark.parametrize("toy", [LLAMA, GEMMA3, MISTRAL_WINDOW, GPT2], ids=lambda toy: toy.name)
def test_decoding_looks_it_up_and_leaves_the_base_its_own(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    mtp, shapes = adapted(toy), []
    real = slot_attention.attend

    def spy(module: nn.Module, query: Tensor, *more: object, **named: object) -> tuple[Tensor, None]:
        shapes.append(tuple(query.shape))
        return real(module, query, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, slot_attention.NAME, spy)
    config = DecodeConfig(layout="quadratic", masks=2, max_new_tokens=NEW)
    for batch in prompt_batches():
        for said, prompt in zip(generate(mtp, batch, config), batch):
            assert_says(said, expected_output(mtp, toy, prompt, config), toy.name)
    assert len({shape[2] for shape in shapes}) > 2, "prompts and steps of two widths go through it"
    assert mtp.base.attention == "sdpa"


def test_what_is_no_plain_softmax_goes_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = states(1, 2, 2, 3, 9, 0)
    bias = torch.randn(1, 4, 3, 9)
    mask = torch.ones(1, 1, 3, 9, dtype=torch.bool)
    own, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](layer(2), *parts, mask, position_bias=bias)
    ours, _ = slot_attention.attend(layer(2), *parts, mask, position_bias=bias)
    assert torch.equal(ours, own)
    assert outcome(slot_attention.attend, *parts, mask) == outcome(ALL_ATTENTION_FUNCTIONS["sdpa"], *parts, mask)


def outcome(attend: Callable[..., tuple[Tensor, Any]], *parts: Tensor) -> str:
    """What becomes of a softcap, which sdpa does not have: newer transformers refuse it, older ones pass it over."""
    try:
        return str(attend(layer(2), *parts, softcap=3.0)[0])
    except ValueError as error:
        return str(error)
