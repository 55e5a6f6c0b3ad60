"""Mask rows that read the kept K/V in place have the states and gradients of those that get a copy joined to them."""

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from foresay.models.base import mask_attention as attention
from foresay.models.layout.documents import MaskCall
from foresay.models.masks import model
from foresay.models.masks.model import MaskModel
from tests.support.checks import NothingShownError
from tests.support.toys import GEMMA3, LLAMA, SWITCH, TOYS, VOCABULARY, Toy, with_adapter

COPIES = {"gemma2", "gpt-oss", "falcon", "deepseek3", "minicpm3"}
"""Toys with capped scores or sinks, which have no sdpa path, one that does not look its attention up, and latents."""
ROWS, MASKS = 24, 8
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
IN_PLACE = [toy for toy in TOYS if toy.name not in COPIES]
CASES = [(toy, dtype) for toy in IN_PLACE for dtype in TOLERANCE if dtype == torch.float32 or not toy.experts]
"""Experts are dispatched in float32 at most."""


@lru_cache
def trainee(toy: Toy, dtype: torch.dtype) -> MaskModel:
    mtp = with_adapter(toy.model().to(dtype), masks=MASKS)
    mtp.adapter.to(dtype)
    return mtp


def texts(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Ids (2, rows), and anchors (2, 5) from the first row to the last."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (2, rows), generator=generator)
    return ids, torch.tensor([[0, 3, 4, rows // 2, rows - 1], [1, 2, 9, rows // 2, rows - 2]])


def states_and_gradients(mtp: MaskModel) -> dict[str, Tensor]:
    """Of the mask pass, each weighted otherwise so that nothing cancels."""
    ids, anchors = texts()
    mtp.adapter.zero_grad(set_to_none=True)
    cache, _ = mtp.keep(ids)
    states = mtp.see_masks(MaskCall(anchors, MASKS, last=ROWS + MASKS), cache)
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=states.dtype)
    (states * noise).sum().backward()
    gradients = {name: p.grad for name, p in mtp.adapter.named_parameters() if p.grad is not None}
    return {"states": states.detach(), **gradients}


@pytest.mark.parametrize("scores", [1, attention.SCORES_AT_ONCE], ids=["row by row", "at once"])
@pytest.mark.parametrize(("toy", "dtype"), CASES, ids=[f"{toy.name}-{dtype}" for toy, dtype in CASES])
def test_in_place_is_as_with_copies(toy: Toy, dtype: torch.dtype, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mtp = trainee(toy, dtype)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", scores)
    ours = states_and_gradients(mtp)
    monkeypatch.setattr(mtp.base, "reads_kept_rows", False)
    plain = states_and_gradients(mtp)
    assert ours.keys() == plain.keys()
    for name, tensor in plain.items():
        if not tensor.any():
            raise NothingShownError(f"{toy.name}: {name} is all zeros")
        apart = ((ours[name] - tensor).norm() / tensor.norm()).item()
        assert apart <= TOLERANCE[dtype], f"{toy.name}: {name} is {apart:.1e} apart"


def test_who_gets_copies() -> None:
    assert {toy.name for toy in TOYS if not trainee(toy, torch.float32).base.reads_kept_rows} == COPIES


def test_the_base_keeps_its_own_attention() -> None:
    mtp = trainee(LLAMA, torch.float32)
    states_and_gradients(mtp)
    assert mtp.base.attention == "sdpa"
    cache, _ = mtp.keep(texts()[0])
    with pytest.raises(IndexError):
        mtp.see_masks(MaskCall(torch.tensor([[0]]), MASKS + 1, last=ROWS), cache)
    assert mtp.base.attention == "sdpa"


def saved_bytes(mtp: MaskModel, rows: int) -> int:
    """What the mask pass keeps for its backward pass, K/V of the real rows and weights apart."""
    ids, anchors = texts(rows)
    cache, _ = mtp.keep(ids)
    known = {p.untyped_storage().data_ptr() for p in mtp.parameters()}
    known |= {kept.untyped_storage().data_ptr() for layer in cache.layers for kept in (layer.keys, layer.values)}
    saved = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        mtp.see_masks(MaskCall(anchors, MASKS, last=rows), cache)
    return sum(size for size, _ in saved.values())


@pytest.mark.parametrize("toy", [LLAMA, GEMMA3], ids=lambda toy: toy.name)
def test_memory_does_not_grow_with_the_sequence(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    mtp = trainee(toy, torch.float32)
    assert saved_bytes(mtp, 240) == saved_bytes(mtp, 30) > 0
    monkeypatch.setattr(mtp.base, "reads_kept_rows", False)
    assert saved_bytes(mtp, 240) > 1.5 * saved_bytes(mtp, 30), "copies grow"


@pytest.mark.parametrize("rows", [1, 7, SWITCH])
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_the_base_pass_may_run_a_few_rows_at_a_time(toy: Toy, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mtp, ids = trainee(toy, torch.float32), texts()[0][:, :SWITCH]
    whole_cache, whole = mtp.keep(ids)
    monkeypatch.setattr(model, "ROWS_AT_ONCE", rows)
    cache, states = mtp.keep(ids)
    torch.testing.assert_close(states, whole, rtol=1e-4, atol=1e-4)
    for layer, other in zip(cache.layers, whole_cache.layers):
        torch.testing.assert_close((layer.keys, layer.values), (other.keys, other.values), rtol=1e-4, atol=1e-4)
