"""Batches: padded on the right, anchors on rows that carry loss, all of it a pure function of the seed."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.data.example import Example
from foresay.training.config import TrainConfig
from foresay.training.objectives.batches import POOL, Batch, batches, collate, collate_packed, pack

CPU = torch.device("cpu")


def example(length: int, prompt: int, first: int = 1) -> Example:
    """`length` tokens counted up from `first`, of which the first `prompt` are not to be predicted."""
    return Example(tuple(range(first, first + length)), tuple(place >= prompt for place in range(length)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def carried(batch: Batch, row: int) -> list[int]:
    return batch.carries[row].nonzero().flatten().tolist()


def drawn(batch: Batch, row: int) -> list[int]:
    """Anchors of a sequence, without the empty places."""
    return [anchor for anchor in batch.anchors[row].tolist() if anchor >= 0]


def test_sequences_are_padded_behind() -> None:
    batch = collate([example(3, 1), example(5, 2)], 1, generator(), CPU)
    assert batch.ids.tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]
    assert batch.ids.dtype == torch.int64


def test_a_row_carries_what_the_next_token_is() -> None:
    batch = collate([example(3, 1), example(5, 2)], 1, generator(), CPU)
    assert carried(batch, 0) == [0, 1]
    assert carried(batch, 1) == [1, 2, 3]


def test_no_number_of_anchors_takes_every_row_that_carries_loss() -> None:
    batch = collate([example(3, 1), example(7, 2)], 0, generator(), CPU)
    assert batch.anchors.tolist() == [[-1, -1, -1, 0, 1], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("anchors", [1, 3, 50])
def test_anchors_stand_on_rows_that_carry_loss(anchors: int, seed: int) -> None:
    examples = [example(length, prompt) for length, prompt in ((2, 1), (9, 3), (12, 1), (12, 11))]
    batch = collate(examples, anchors, generator(seed), CPU)
    assert batch.anchors.shape == (4, min(anchors, 11))
    for row in range(len(examples)):
        standing = carried(batch, row)
        chosen = drawn(batch, row)
        assert len(chosen) == min(anchors, len(standing))
        assert len(set(chosen)) == len(chosen), "an anchor carries one block"
        assert set(chosen) <= set(standing)
        assert batch.anchors[row].tolist() == sorted(batch.anchors[row].tolist())


def test_every_row_that_carries_loss_is_drawn_alike() -> None:
    source, counts = generator(), Counter[int]()
    for _ in range(600):
        counts.update(drawn(collate([example(8, 2)], 2, source, CPU), 0))
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    # 200 each are expected; five standard deviations are 58.
    assert all(abs(count - 200) < 58 for count in counts.values()), counts


def first(count: int, config: TrainConfig, examples: list[Example]) -> list[Batch]:
    source: Iterator[Batch] = batches(examples, config, CPU)
    return list(islice(source, count))


EXAMPLES = [example(4 + (7 * number) % 30, 2, first=100 * number) for number in range(1, 24)]


def same(one: Batch, other: Batch) -> bool:
    pairs = ((one.ids, other.ids), (one.carries, other.carries), (one.anchors, other.anchors))
    return all(torch.equal(left, right) for left, right in pairs)


def test_batches_are_a_function_of_the_seed() -> None:
    config = TrainConfig(sequences=4, anchors=3, seed=7)
    torch.manual_seed(1)
    one = first(15, config, EXAMPLES)
    torch.manual_seed(2)
    torch.rand(5)
    assert all(map(same, one, first(15, config, EXAMPLES)))
    other = first(15, TrainConfig(sequences=4, anchors=3, seed=8), EXAMPLES)
    assert not any(map(same, one, other))


def test_every_epoch_holds_every_example_once_in_a_new_order() -> None:
    epoch = -(-len(EXAMPLES) // 4)
    seen = first(2 * epoch, TrainConfig(sequences=4, anchors=3), EXAMPLES)
    orders = []
    for half in (seen[:epoch], seen[epoch:]):
        orders.append([tokens[0] for batch in half for tokens in batch.ids.tolist()])
        assert sorted(orders[-1]) == sorted(one.ids[0] for one in EXAMPLES)
        assert {len(batch.ids) for batch in half} == {4, len(EXAMPLES) % 4}
    assert orders[0] != orders[1]


def test_every_epoch_pools_other_examples() -> None:
    # With one sequence a batch a pool is the first POOL batches, in whatever order.
    count = len(EXAMPLES)
    seen = [batch.ids[0, 0].item() for batch in first(2 * count, TrainConfig(sequences=1, anchors=3), EXAMPLES)]
    assert set(seen[:POOL]) != set(seen[count : count + POOL])


def test_sequences_of_like_length_stand_together() -> None:
    examples = [example(length, 1) for length in range(2, 2 + 4 * POOL)]
    padding = sum(int((batch.ids == 0).sum()) for batch in first(POOL, TrainConfig(sequences=4), examples))
    # Lengths n, n - 1, n - 2, n - 3 in every batch: no shuffled order pads as little.
    assert padding == POOL * (1 + 2 + 3)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_packing_holds_everything_once_and_nothing_too_long(lengths: list[int]) -> None:
    groups = pack(dict(enumerate(lengths)), room=20)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    filled = [sum(lengths[place] for place in group) for group in groups]
    assert all(total <= 20 for total, group in zip(filled, groups) if len(group) > 1)
    assert all(one + other > 20 for one, other in pairwise(filled) if one <= 20), "two groups fit into one"


def test_packed_documents_stand_side_by_side() -> None:
    batch = collate_packed([[example(3, 1), example(2, 1, first=10)], [example(4, 2)]], 0, generator(), CPU)
    assert batch.ids.tolist() == [[1, 2, 3, 10, 11], [1, 2, 3, 4, 0]]
    assert [carried(batch, row) for row in (0, 1)] == [[0, 1, 3], [1, 2]]
    assert batch.anchors.tolist() == [[0, 1, 3], [-1, 1, 2]]
    assert batch.documents.starts.tolist() == [[0, 0, 0, 3, 3], [0, 0, 0, 0, 4]]
    assert batch.documents.positions(slice(0, 5)).tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]


PACKED = TrainConfig(sequences=4, anchors=3, pack=True, max_length=40)


def own_tokens(batch: Batch) -> list[list[int]]:
    """Tokens of every document; padding is 0."""
    found = []
    for ids, starts in zip(batch.ids.tolist(), batch.documents.starts.tolist()):
        for start in sorted(set(starts)):
            found.append([token for token, own in zip(ids, starts) if own == start])
    return [tokens for tokens in found if tokens != [0]]


def test_every_packed_epoch_holds_every_example_once_in_a_new_order() -> None:
    orders: list[list[list[int]]] = []
    source = batches(EXAMPLES, PACKED, CPU)
    while len(orders) < 2:
        epoch: list[list[int]] = []
        while len(epoch) < len(EXAMPLES):
            batch = next(source)
            assert batch.ids.shape[0] <= 4
            assert batch.ids.shape[1] <= 40
            epoch += own_tokens(batch)
        assert sorted(epoch) == sorted(list(one.ids) for one in EXAMPLES)
        orders.append(epoch)
    assert orders[0] != orders[1]


def test_packed_batches_are_a_function_of_the_seed() -> None:
    one = first(9, PACKED, EXAMPLES)
    torch.rand(5)
    again = first(9, PACKED, EXAMPLES)
    assert all(map(same, one, again))
    assert all(torch.equal(a.documents.starts, b.documents.starts) for a, b in zip(one, again))


def test_packed_sequences_wait_for_the_next_pool() -> None:
    examples = [example(10, 2, first=100 * number) for number in range(3 * 4 * POOL)]
    sizes = [len(batch.ids) for batch in first(12, PACKED, examples)]
    assert sizes == [4] * 12, "192 examples of 10 tokens fill 48 sequences of 40"
    many = [example(10, 2, first=100 * number) for number in range(4 * POOL + 4)]
    assert [len(batch.ids) for batch in first(5, PACKED, many)] == [4, 4, 4, 4, 1]
