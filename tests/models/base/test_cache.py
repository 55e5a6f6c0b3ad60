"""Slots: what is moved, and what stays."""

import torch

from foresay.models.base.cache import SlotCache


def filled(batch: int, slots: int) -> SlotCache:
    """A cache of two layers whose keys and values say where they stand."""
    cache = SlotCache(2, slots)
    cache.place(torch.arange(slots).expand(batch, -1), slots)
    for number, layer in enumerate(cache.layers):
        rows = torch.arange(batch * 3 * slots * 2.0).view(batch, 3, slots, 2)
        layer.update(rows + 1e4 * number, -rows - 1e4 * number)
    return cache


def test_moved_slots_lie_side_by_side_and_the_others_where_they_were() -> None:
    start, slots = torch.tensor([2, 5]), torch.tensor([[2, 4, 7, 7], [5, 6, 8, 9]])
    cache, before = filled(2, 12), filled(2, 12)
    cache.move(start, slots)
    for moved, kept in zip(cache.layers, before.layers):
        for now, then in ((moved.keys, kept.keys), (moved.values, kept.values)):
            for b in range(2):
                source = list(range(12))
                source[start[b] : start[b] + 4] = slots[b].tolist()
                assert torch.equal(now[b], then[b][:, source])


def test_a_slot_is_read_before_it_is_written() -> None:
    cache, before = filled(1, 6), filled(1, 6)
    cache.move(torch.tensor([1]), torch.tensor([[2, 1, 4]]))
    assert torch.equal(cache.layers[0].keys[0], before.layers[0].keys[0][:, [0, 2, 1, 4, 4, 5]])
