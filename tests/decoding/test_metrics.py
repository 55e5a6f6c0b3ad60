"""One set of metrics, on steps written by hand."""

import pytest

from foresay.decoding.metrics import PositionAcceptance, repeated_4grams, tally
from foresay.decoding.steps import Generation, Step


def step(*tokens: int, drafted: int, accepted: int | None = None, depth: int | None = None) -> Step:
    """A step that kept these tokens, all but the last drafts unless it was cut; a chain unless `depth` says less."""
    kept = len(tokens) - 1 if accepted is None else accepted
    return Step(tokens, drafted, kept, drafted if depth is None else depth)


def said(*steps: Step) -> Generation:
    return Generation(steps, "length")


def test_nothing_costs_nothing() -> None:
    counted = tally([])
    assert (counted.prompts, counted.tokens, counted.steps, counted.tokens_per_step) == (0, 0, 0, 0.0)
    assert counted.acceptance_per_position == []


def test_tokens_per_step_is_a_ratio_of_sums() -> None:
    # One prompt at 4 tokens a step, one at 1: the mean of ratios would be 2.5.
    fast = said(step(1, 2, 3, 4, drafted=3))
    slow = said(*(step(token, drafted=3) for token in range(5)))
    counted = tally([fast, slow])
    assert (counted.prompts, counted.tokens, counted.steps) == (2, 9, 6)
    assert counted.tokens_per_step == 1.5


def test_what_was_looked_up_is_counted_apart_from_the_models_own() -> None:
    own, found = step(1, 2, drafted=3), Step((3, 4, 5), 8, 2, 8, looked_up=8)
    counted = tally([said(own, found)])
    assert (counted.drafted, counted.accepted) == (11, 3)
    assert (counted.looked_up, counted.looked_up_accepted) == (8, 2)
    assert counted.acceptance == tally([said(own)]).acceptance


def test_plain_decoding_drafts_nothing() -> None:
    counted = tally([said(step(1, drafted=0), step(2, drafted=0))])
    assert counted.tokens_per_step == 1.0
    assert (counted.drafted, counted.accepted, counted.acceptance) == (0, 0, ())


def test_acceptance_by_position_given_the_one_before_and_not() -> None:
    # The prefill drafts nothing; then 3, 3, 3 and 1 drafts, of which 0, 1, 3 and 1 stay.
    steps = (
        step(1, drafted=0),
        step(2, drafted=3),
        step(3, 4, drafted=3),
        step(5, 6, 7, 8, drafted=3),
        step(9, 10, drafted=1),
    )
    counted = tally([said(*steps)])
    assert counted.acceptance == (
        PositionAcceptance(1, drafted=4, accepted=3, unconditional=3 / 4, conditional=3 / 4),
        PositionAcceptance(2, drafted=3, accepted=1, unconditional=1 / 3, conditional=1 / 2),
        PositionAcceptance(3, drafted=3, accepted=1, unconditional=1 / 3, conditional=1 / 1),
    )
    assert (counted.drafted, counted.accepted) == (10, 5)
    assert counted.acceptance_per_position == [3 / 4, 1 / 3, 1 / 3]


def test_positions_of_a_tree_are_its_depths() -> None:
    counted = tally([said(step(1, 2, drafted=7, depth=2), step(3, drafted=2, depth=1))])
    assert counted.acceptance == (
        PositionAcceptance(1, drafted=2, accepted=1, unconditional=1 / 2, conditional=1 / 2),
        PositionAcceptance(2, drafted=1, accepted=0, unconditional=0.0, conditional=0.0),
    )
    assert (counted.drafted, counted.accepted) == (9, 1)


def test_a_position_that_nobody_reaches_is_zero() -> None:
    counted = tally([said(step(1, drafted=2))])
    assert counted.acceptance[1] == PositionAcceptance(2, drafted=1, accepted=0, unconditional=0.0, conditional=0.0)


def test_tokens_behind_the_stop_are_not_kept() -> None:
    # Three drafts stood, the second was the stop token: two tokens kept, both of them drafts.
    counted = tally([said(step(1, drafted=0), step(2, 0, drafted=3, accepted=2))])
    assert (counted.tokens, counted.accepted, counted.drafted) == (3, 2, 3)
    assert counted.tokens_per_step == 1.5
    assert [entry.accepted for entry in counted.acceptance] == [1, 1, 0]


def test_generations_may_come_one_by_one() -> None:
    assert tally(said(step(1, drafted=0)) for _ in range(3)).prompts == 3


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ([], 0.0),
        ([[1, 2, 3]], 0.0),
        ([[1, 2, 3, 4, 5]], 0.0),
        ([[7] * 8], 4 / 5),
        ([[1, 2, 3, 4] * 2], 1 / 5),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], 0.0),
        ([[7] * 8, list(range(8))], 4 / 10),
    ],
    ids=["none", "short", "new", "loop", "once", "apart", "ratio of sums"],
)
def test_repeated_4grams(texts: list[list[int]], share: float) -> None:
    assert repeated_4grams(texts) == pytest.approx(share)
