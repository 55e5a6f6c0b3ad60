"""Which rows of a vLLM step are masks, and how many drafts go before the next ones. Without vLLM."""

import numpy as np
import pytest

from foresay.serving.vllm.plugin.step_rows import StepRows, best_length

# A prompt of 5 rows; a request with 2 drafts and 3 masks; one whose masks were cut to 1; one without any.
STEP = StepRows(scheduled=(5, 6, 4, 1), judged=(1, 6, 4, 1), masks=(0, 3, 1, 0))


def test_the_gate_opens_on_masks_alone() -> None:
    assert np.flatnonzero(STEP.gate()).tolist() == [8, 9, 10, 14]
    assert len(STEP.gate()) == 16


def test_masks_stand_last_among_judged_rows() -> None:
    assert np.flatnonzero(STEP.judged_masks()).tolist() == [4, 5, 6, 10]
    assert len(STEP.judged_masks()) == sum(STEP.judged)


def test_blocks_stand_behind_the_last_kept_token() -> None:
    assert STEP.drafts(1) == 2
    assert list(STEP.block(1, kept=3)) == [4, 5, 6]
    assert list(STEP.block(2, kept=3)) == [10]


@pytest.mark.parametrize(("request_", "kept"), [(1, 1), (1, 2), (2, 1), (0, 1), (3, 1)])
def test_no_block_behind_a_wrong_draft_or_where_there_were_no_masks(request_: int, kept: int) -> None:
    assert not STEP.block(request_, kept)


def long_run(chances: list[float], drafts: int) -> float:
    """Tokens a step, by playing the two kinds of step of `best_length` against each other many times."""
    generator, tokens, steps, asked = np.random.default_rng(0), 0, 0, True
    for _ in range(40_000):
        steps += 1
        if not asked:
            tokens, asked = tokens + 1, True
            continue
        kept = 0
        while kept < drafts and generator.random() < chances[kept]:
            kept += 1
        tokens, asked = tokens + kept + 1, kept == drafts
    return tokens / steps


@pytest.mark.parametrize("chances", [[0.9, 0.9, 0.2, 0.1], [0.3, 0.9], [1.0, 1.0, 1.0], [0.5, 0.95, 0.95, 0.05], [0.1]])
def test_the_best_length_keeps_most_in_the_long_run(chances: list[float]) -> None:
    rates = {drafts: long_run(chances, drafts) for drafts in range(1, len(chances) + 1)}
    assert rates[best_length(chances)] >= max(rates.values()) - 0.02
