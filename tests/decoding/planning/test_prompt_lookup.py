"""Prompt lookup: what is found, what is learnt from it without a trial, and when the planner gives it rows."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresay.decoding.planning.acceptance import AcceptanceEstimate, LookupEstimate
from foresay.decoding.planning.planner import LOOKUP, PLAIN, Cost, Costs, Entry, Outlook, Planner
from foresay.decoding.planning.prompt_lookup import LONGEST, SHORTEST, TOKENS, Match, NgramIndex

QUADRATIC, LINEAR = Entry("quadratic", 3), Entry("linear", 4)
COSTS: Costs = {PLAIN: Cost(1, 1), QUADRATIC: Cost(1.5, 1.2), LINEAR: Cost(1.3, 1.2), LOOKUP: Cost(1.25, 1)}
DEAR: Costs = {PLAIN: Cost(1.4, 1.4), QUADRATIC: Cost(1.5, 1.4), LOOKUP: Cost(9, 1)}
"""Rows without masks do not pay."""
LOOP = [7, 8, 9] * 5


def brute_force(ids: Sequence[int], most: int) -> Match | None:
    for length in range(LONGEST, SHORTEST - 1, -1):
        for place in range(len(ids) - 1, length - 1, -1):
            if ids[place - length : place] == ids[-length:]:
                text = list(ids)
                for step in range(most):
                    text.append(text[place + step])
                return Match(tuple(text[len(ids) :]), length)
    return None


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 9))
def test_it_is_the_longest_and_latest_match_however_the_text_grew(ids: list[int], most: int) -> None:
    growing: list[int] = []
    index = NgramIndex(growing)
    for step, token in enumerate(ids):
        growing.append(token)
        if step % 3 == 0:
            assert index.match(most) == brute_force(growing, most)
    assert index.match(most) == brute_force(ids, most)


def test_a_text_without_repeats_has_no_match() -> None:
    assert NgramIndex(list(range(50))).match() is None
    assert NgramIndex([]).match() is None


def test_a_match_is_learnt_from_whether_it_was_verified_or_not() -> None:
    match = Match((1, 2, 3, 4), 3)
    right, wrong, half = LookupEstimate(), LookupEstimate(), LookupEstimate()
    for _ in range(10):
        right.observe(match, [1])
        wrong.observe(match, [9])
        half.observe(match, [1, 9])
    assert right.chance(3) > 0.85
    assert wrong.chance(3) < 0.15
    assert half.chance(3) == pytest.approx(0.5, abs=0.05)
    assert right.chance(2) == LookupEstimate().chance(2), "each length for itself"
    assert right.expected(match, 2) == pytest.approx(right.chance(3) + right.chance(3) ** 2)
    assert right.expected(None, 2) == 0


def outlook(planner: Planner, ids: list[int], drafted: int = 0) -> Outlook:
    made = planner.outlook(ids, lookup=True)
    made.look(drafted, reads_prompt=False)
    return made


def trusted(planner: Planner, ids: list[int], drafted: int = 0) -> Outlook:
    """Whose matches have been right for a while."""
    made = outlook(planner, ids, drafted)
    assert made.match is not None
    for _ in range(12):
        made.lookup.observe(made.match, made.match.tokens[:1])
    return made


def hopeless() -> Planner:
    return Planner(COSTS, AcceptanceEstimate((0.02, 0.0, 0.0, 0.0)))


def test_a_trusted_match_gets_rows_in_a_plain_step() -> None:
    planner = hopeless()
    text = trusted(planner, LOOP)
    assert planner.choose([text]) == LOOKUP
    assert text.taken == TOKENS
    assert text.match == Match((7, 8, 9, 7, 8, 9, 7, 8), 4)


def test_a_match_that_was_wrong_gets_none() -> None:
    planner = hopeless()
    text = outlook(planner, [*LOOP, 1, 2, 7, 8])
    assert text.match is not None
    for _ in range(5):
        text.lookup.observe(text.match, [0])
    assert planner.choose([text]) == PLAIN
    assert text.taken == 0


def test_it_takes_the_place_of_drafts_that_promise_less_and_of_no_others() -> None:
    for acceptance, taken in ((0.99, 0.98, 0.97, 0.96), 0), ((0.7, 0.3, 0.2, 0.1), QUADRATIC.masks):
        planner = Planner(DEAR, AcceptanceEstimate(acceptance))
        text = trusted(planner, LOOP, drafted=3)
        assert planner.choose([text]) == QUADRATIC
        assert text.taken == taken


def test_in_a_batch_each_text_verifies_what_promises_most() -> None:
    planner = Planner(DEAR, AcceptanceEstimate((0.7, 0.4, 0.3)))
    texts = [trusted(planner, LOOP, 3), outlook(planner, list(range(9)), 3), trusted(planner, [5, 5, 5, 5, 5], 3)]
    assert planner.choose(texts) == QUADRATIC
    assert [text.taken for text in texts] == [3, 0, 3]


def test_rows_for_one_text_of_many_do_not_pay() -> None:
    planner = hopeless()
    loop, others = trusted(planner, LOOP), [outlook(planner, list(range(9))) for _ in range(40)]
    assert planner.choose([loop, *others]) == PLAIN
    assert planner.choose([loop, others[0]]) == LOOKUP


def test_switched_off_nothing_is_looked_up() -> None:
    assert hopeless().outlook(LOOP, lookup=False).index is None


def test_a_text_may_come_to_a_batch_for_which_rows_for_matches_were_not_measured() -> None:
    large = Planner({entry: cost for entry, cost in COSTS.items() if entry != LOOKUP}, AcceptanceEstimate((0.0,)))
    small = hopeless()
    text = trusted(small, LOOP)
    assert [planner.choose([text]) for planner in (small, large, small)] == [LOOKUP, PLAIN, LOOKUP]
    assert trusted(large, LOOP).match is not None, "one that begins in the large batch is looked up later"


def test_a_prompt_is_read_without_drafts() -> None:
    text = hopeless().outlook(LOOP, lookup=True)
    text.look(0, reads_prompt=True)
    assert text.match is None


def test_a_new_text_begins_with_what_all_have_shown_and_soon_knows_better() -> None:
    planner = hopeless()
    old = outlook(planner, LOOP)
    for _ in range(200):
        planner.observe(old, 0, 0, [7])
    new = outlook(planner, LOOP)
    assert new.lookup.chance(4) == pytest.approx(planner.lookup.chance(4))
    assert planner.choose([new]) == LOOKUP
    for _ in range(8):
        new.taken = 0
        planner.observe(new, 0, 0, [0])
    assert planner.choose([new]) == PLAIN
    assert planner.lookup.chance(4) > new.lookup.chance(4)


def test_what_a_lookup_earned_is_not_counted_as_the_models() -> None:
    planner = hopeless()
    text = outlook(planner, LOOP)
    before = planner.acceptance.estimate()
    text.taken = TOKENS
    planner.observe(text, TOKENS, TOKENS, [*LOOP[:TOKENS], 1])
    assert planner.acceptance.estimate() == before == text.acceptance.estimate()
