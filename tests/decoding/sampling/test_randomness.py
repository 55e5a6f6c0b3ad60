"""Random numbers: each sequence its own, in order, whatever a step asks for and whatever shares it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.decoding.sampling.randomness import AT_ONCE, Numbers, SeededNumbers

CPU = torch.device("cpu")


@given(st.lists(st.tuples(st.integers(0, AT_ONCE + 9), st.integers(0, AT_ONCE + 9)), max_size=9), st.integers(0, 99))
def test_numbers_are_the_generators_whatever_asks_for_how_many(asked: list[tuple[int, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one_by_one = [torch.rand((), generator=generator, dtype=torch.float64).item() for _ in range(9 * AT_ONCE)]
    numbers, start = Numbers(torch.Generator().manual_seed(seed)), 0
    for most, used in asked:
        assert numbers.next(most).tolist() == one_by_one[start : start + most]
        numbers.used += min(most, used)
        start += min(most, used)


def test_a_number_below_the_chance_accepts_and_picks_by_the_cumulative_sum() -> None:
    rng = SeededNumbers(3, [0, 4])
    rng.begin(3, CPU)
    numbers = rng.numbers
    chances = numbers + torch.tensor([[1e-9, -1e-9, 0.0], [0.0, 1e-9, -1e-9]])
    places = torch.arange(3).expand(2, -1)
    assert rng.accept(chances, places).tolist() == [[True, False, False], [False, True, False]]
    distributions = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]).expand(2, 3, -1)
    expected = [[1 if u < 0.25 else 3 if u < 0.75 else 4 for u in row] for row in numbers.tolist()]
    assert rng.pick(distributions, places).tolist() == expected


def test_sequences_keep_their_numbers_when_others_leave_or_join() -> None:
    rng, alone = SeededNumbers(7, [0, 1, 2]), SeededNumbers(7, [2])
    for own in (rng, alone):
        own.begin(4, CPU)
    rng.select([2, 1])
    assert torch.equal(rng.numbers[:1], alone.numbers)
    rng.settle([3, 0])
    alone.settle([3])
    rng.join(SeededNumbers.seeded([11]))
    rng.select([2, 0])
    for own in (rng, alone):
        own.begin(5, CPU)
    assert torch.equal(rng.numbers[1:], alone.numbers)
    assert torch.equal(rng.numbers[0], SeededNumbers.seeded([11]).next(5)[0])
    assert torch.equal(rng.of([1]).numbers, alone.numbers)
