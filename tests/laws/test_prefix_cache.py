"""Prompts that share a beginning share its K/V, and every answer stays what it would be without: greedy and sampled."""

import logging
import random
from collections.abc import Sequence

import pytest
import torch

from foresay.decoding import prefix_cache
from foresay.decoding.config import DecodeConfig, LayoutName, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.prefix_cache import PrefixCache
from foresay.decoding.requests import Request, RequestProgress
from foresay.models.base.cache import SlotCache
from foresay.models.drafting import DraftingModel
from tests.laws.test_engine import know
from tests.laws.test_heads import VARIANTS, with_heads
from tests.laws.test_user_lora import own_words, with_lora
from tests.support.checks import DISTINCT, expected_output
from tests.support.layouts import ALL
from tests.support.toys import LLAMA, MISTRAL_WINDOW, PHI3_LONGROPE, TOYS, Toy, adapted, random_prompts, with_adapter

BLOCK = 4
SAYS = 17
SYSTEM, *TURNS = random_prompts([37, 9, 1, 22, 5, 13, 30], seed=3)


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "BLOCK", BLOCK)


def engine_of(model: DraftingModel, layout: LayoutName = "quadratic", mib: int = 4, **queue: int) -> Engine:
    config = DecodeConfig(layout=layout, masks=2, branches=2, nodes=7)
    return Engine.open(model, config, QueueConfig(**{"sequences": 4, "prefix_cache": mib, **queue}))


def answers(engine: Engine, requests: Sequence[Request]) -> tuple[list[list[int]], list[int]]:
    """Tokens of requests that come together, and how much of each prompt was not read again."""
    tickets = engine.submit(requests)
    seen: list[RequestProgress] = []
    while engine.busy:
        seen += engine.step()
    of = [[told for told in seen if told.ticket == ticket] for ticket in tickets]
    return [[t for told in own for t in told.step.tokens] for own in of], [own[0].cached_tokens for own in of]


def conversation(engine: Engine, says: int = SAYS) -> list[tuple[Request, list[int]]]:
    """Chats with one system prompt, turn by turn, all at once; where anything is kept, earlier turns are found."""
    texts, done = [SYSTEM + turn for turn in TURNS], []
    for turn, more in enumerate(TURNS[:3]):
        requests = [Request(text, says) for text in texts]
        said, cached = answers(engine, requests)
        if turn and engine.prefixes.budget:
            # All but the newest words, and the last tokens, which are always read.
            least = [len(text) - len(TURNS[turn - 1]) - BLOCK - engine.model.config.drafts - 3 for text in texts]
            assert all(kept >= some for kept, some in zip(cached, least)), f"{cached} of at least {least}"
        done += list(zip(requests, said))
        texts = [text + tuple(own) + more for text, own in zip(texts, said)]
    assert bool(engine.prefixes.bytes) == bool(engine.prefixes.budget)
    return done


@pytest.mark.parametrize("toy", [toy for toy in TOYS if toy is not PHI3_LONGROPE], ids=lambda toy: toy.name)
def test_later_turns_say_what_they_would_say_alone(toy: Toy) -> None:
    mtp = adapted(toy)
    done = conversation(engine_of(mtp))
    for request, said in done:
        assert said == expected_output(mtp, toy, request.prompt, DecodeConfig(max_new_tokens=SAYS))
    assert len({token for _, said in done for token in said}) > DISTINCT // 2


def test_a_base_that_changes_its_frequencies_keeps_what_stands_before() -> None:
    mtp = adapted(PHI3_LONGROPE)
    engine = Engine.open(mtp, DecodeConfig(layout="linear"), QueueConfig(sequences=2, prefix_cache=1))
    for seed in range(8):
        [prompt] = random_prompts([15], seed)
        for kept in (0, BLOCK):
            [said], [cached] = answers(engine, [Request(prompt, 1)])
            assert said == expected_output(mtp, PHI3_LONGROPE, prompt, DecodeConfig(max_new_tokens=1))
            assert cached == kept


@pytest.mark.parametrize("layout", ALL)
def test_every_layout_keeps_what_it_wrote(layout: LayoutName, monkeypatch: pytest.MonkeyPatch) -> None:
    mtp = adapted(LLAMA)
    without = conversation(engine_of(mtp, "plain", mib=0))
    know(monkeypatch, [(request.prompt, said) for request, said in without])
    assert conversation(engine_of(mtp, layout)) == without


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("toy", ["llama", "mistral-window", "gemma2"])
def test_heads_keep_their_own_keys_and_values(toy: str, config: object) -> None:
    model = with_heads(toy, config)  # type: ignore[arg-type]
    engine, plain = engine_of(model), engine_of(model, "plain")
    plain.share_prefixes(engine)
    done = conversation(engine)
    assert done == conversation(engine_of(model, "plain", mib=0))
    # A cache with fewer layers does not take what one with more has kept, nor the other way round.
    again, cached = answers(plain, [request for request, _ in done[-1:]])
    assert again == [done[-1][1]]
    own_layers = len(engine.session.cache.layers) != len(plain.session.cache.layers)
    assert (cached == [0]) == own_layers


@pytest.mark.parametrize("toy", [LLAMA, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_a_lora_of_the_users_own_counts_as_the_base(toy: Toy) -> None:
    theirs = with_lora(toy.model())
    mtp = with_adapter(with_lora(toy.model()).base_model.model, masks=3)
    for request, said in conversation(engine_of(mtp), says=32):
        assert said == own_words(theirs, request.prompt)


def test_sampled_answers_follow_their_seeds() -> None:
    mtp, prompts = adapted(LLAMA), [SYSTEM + turn for turn in TURNS]
    requests = [Request(p, SAYS, SampleConfig(temperature=1.1, seed=seed)) for seed, p in enumerate(prompts)]
    expected = [answers(engine_of(mtp, "plain", mib=0), [request])[0][0] for request in requests]
    engine = engine_of(mtp)
    first, _ = answers(engine, requests)
    second, cached = answers(engine, requests)
    assert first == second == expected
    assert all(cached)


def test_others_that_read_more_or_less_share_the_call() -> None:
    mtp, engine = adapted(LLAMA), engine_of(adapted(LLAMA), max_length=200)
    answers(engine, [Request(SYSTEM + TURNS[0], SAYS)])
    long, short = random_prompts([150, 2], seed=9)
    prompts = [long, SYSTEM + TURNS[1], short, SYSTEM + TURNS[2]]
    said, cached = answers(engine, [Request(prompt, SAYS) for prompt in prompts])
    assert [bool(some) for some in cached] == [False, True, False, True]
    for prompt, own in zip(prompts, said):
        assert own == expected_output(mtp, LLAMA, prompt, DecodeConfig(max_new_tokens=SAYS))


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_is_kept_and_what_was_not_used_for_longest_goes_first(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foresay.decoding.engine.MIB", 1)
    mtp, schedule = adapted(LLAMA), random.Random(seed)
    one = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, float32
    budget = 30 * BLOCK * one
    engine = engine_of(mtp, mib=budget)
    pool = random_prompts([21, 40, 33, 50, 16], seed)
    for _ in range(12):
        prompts = [schedule.choice(pool) + schedule.choice(TURNS) for _ in range(schedule.randint(1, 4))]
        said, _ = answers(engine, [Request(prompt, 9) for prompt in prompts])
        assert 0 < engine.prefixes.bytes <= budget
        assert engine.prefixes.bytes == sum(block.nbytes for block in engine.prefixes._blocks.values())
        for prompt, own in zip(prompts, said):
            assert own == expected_output(mtp, LLAMA, prompt, DecodeConfig(max_new_tokens=9))
    old, new = random_prompts([60, 80], seed=77)
    for prompt in (old, new, old + new[:9]):
        _, cached = answers(engine, [Request(prompt, 1)])
    assert 0 < cached[0] < 60, "of the older text the end was given up, and its beginning still serves"


def test_one_that_was_cancelled_leaves_what_it_had_read() -> None:
    mtp, engine = adapted(LLAMA), engine_of(adapted(LLAMA))
    [ticket] = engine.submit([Request(SYSTEM, SAYS)])
    said = list(engine.step()[0].step.tokens)
    for _ in range(3):
        said += [token for told in engine.step() for token in told.step.tokens]
    engine.cancel([ticket])
    text = SYSTEM + tuple(said) + TURNS[2]
    [own], [cached] = answers(engine, [Request(text, SAYS)])
    assert cached >= len(SYSTEM)
    assert own == expected_output(mtp, LLAMA, text, DecodeConfig(max_new_tokens=SAYS))


def test_another_beginning_is_not_taken_for_the_same() -> None:
    engine = engine_of(adapted(LLAMA))
    answers(engine, [Request(SYSTEM, SAYS)])
    for change in (0, 5, 21):
        other = [*SYSTEM]
        other[change] = (other[change] + 1) % 96
        _, [cached] = answers(engine, [Request(tuple(other), 1)])
        assert cached == change // BLOCK * BLOCK


def test_a_cache_of_several_kinds_is_not_kept_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    kept, cache = PrefixCache(1 << 20), SlotCache(2, 16)
    cache.place(torch.arange(8)[None], 8)
    for layer, dtype in enumerate((torch.float32, torch.float16)):
        cache.update(*2 * (torch.zeros(1, 2, 8, 4, dtype=dtype),), layer)
    with caplog.at_level(logging.WARNING):
        kept.keep(cache, 0, range(8))
    assert "no prefix is kept between requests: layers of the base keep K/V in torch.float16 and" in caplog.text
    assert (kept.budget, kept.bytes) == (0, 0)
