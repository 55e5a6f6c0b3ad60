"""Processors of our own, beside transformers'."""

import pytest
import torch
from transformers import MinNewTokensLengthLogitsProcessor, SequenceBiasLogitsProcessor

from foresay.decoding.sampling.logits_processors import limiters

VOCABULARY, PROMPT, LEAST, STOPS = 12, 3, 4, (2, 7)


@pytest.mark.parametrize("said", range(LEAST + 2))
def test_stop_tokens_are_held_back_as_long_as_transformers_holds_them(said: int) -> None:
    [ours] = limiters((), LEAST, PROMPT, STOPS)
    theirs = MinNewTokensLengthLogitsProcessor(PROMPT, LEAST, list(STOPS))
    ids, scores = torch.ones(2, PROMPT + said, dtype=torch.int64), torch.randn(2, VOCABULARY)
    held = ours(ids, scores.clone())
    assert torch.equal(held, theirs(ids, scores.clone()))
    assert bool(held[:, list(STOPS)].isinf().all()) == (said < LEAST)


def test_a_grammar_that_has_ended_may_stop_before() -> None:
    [ours] = limiters((), LEAST, PROMPT, STOPS)
    ended = torch.full((1, VOCABULARY), -torch.inf)
    ended[0, STOPS[0]] = 1.5
    assert torch.equal(ours(torch.ones(1, PROMPT, dtype=torch.int64), ended.clone()), ended)


def test_a_bias_is_transformers_own() -> None:
    [ours] = limiters(((5, -3.0), (9, 2.5)), 0, 0, ())
    theirs = SequenceBiasLogitsProcessor([[[5], -3.0], [[9], 2.5]])
    ids, scores = torch.ones(2, 6, dtype=torch.int64), torch.randn(2, VOCABULARY)
    assert torch.equal(ours(ids, scores.clone()), theirs(ids, scores.clone()))
