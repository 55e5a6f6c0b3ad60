"""Whatever joins and leaves, an answer is what it would be alone: greedy plain's to the token, sampled by its seed."""

import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch

from foresay.decoding.config import DecodeConfig, LayoutName, PenaltyConfig, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.requests import Request, RequestProgress
from foresay.decoding.sampling.chooser import Drafts, Greedy, chooser_of
from foresay.decoding.sampling.draft import Blocks
from foresay.decoding.sampling.logits_processors import CountPenalty, Processing, penalties
from foresay.decoding.sampling.per_request import Mixed
from foresay.foundation.errors import BusyError, ConfigError, PromptError
from foresay.models.layout.tree import Tree
from foresay.models.masks.model import MaskModel
from tests.support.checks import DISTINCT, expected_output
from tests.support.layouts import ALL
from tests.support.toys import (
    GEMMA2,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    PHI3_LONGROPE,
    SWITCH,
    VOCABULARY,
    Toy,
    adapted,
    random_prompts,
)

LENGTHS = [5, 1, 17, 9, 2, 30, 7, 12, 3, 8, 21, 4, 6, 11]
SAMPLES = [
    SampleConfig(temperature=0.8, seed=3),
    SampleConfig(temperature=1.0, top_p=0.9, seed=4),
    SampleConfig(temperature=1.3, top_k=20, min_p=0.05, seed=5),
]


@dataclass
class Answer:
    """What one request has got so far."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    steps: int = 0
    ended: str | None = None
    cancelled: bool = False


def engine_of(mtp: MaskModel, layout: LayoutName, **queue: int) -> Engine:
    config = DecodeConfig(layout=layout, masks=3, branches=2, nodes=7)
    return Engine.open(mtp, config, QueueConfig(**{"sequences": 4, "prefill_tokens": 40, **queue}))


def run(engine: Engine, answers: dict[int, Answer]) -> list[RequestProgress]:
    """One step."""
    progress = engine.step()
    for told in progress:
        answer = answers[told.ticket]
        assert answer.ended is None
        assert not answer.cancelled
        answer.tokens += told.step.tokens
        answer.steps += 1
        answer.ended = told.ended
    return progress


def run_all(engine: Engine, requests: Sequence[Request], schedule: random.Random) -> list[Answer]:
    """Requests come a few at a time, and some that nobody answers are cancelled on the way."""
    answers: dict[int, Answer] = {}
    coming = list(requests)
    while coming or engine.busy:
        for _ in range(schedule.choice([0, 0, 1, 1, 2, 5])):
            if coming:
                request = coming.pop(0)
                answers[engine.submit([request])[0]] = Answer(request)
        if schedule.random() < 0.3:
            # Somebody comes and goes away: waiting, in the next step, or some steps later.
            extra = Request(tuple(random_prompts([schedule.randint(1, 20)], schedule.randint(0, 99))[0]), 20)
            answers[engine.submit([extra])[0]] = Answer(extra)
        leaving = [ticket for ticket, answer in answers.items() if answer.request not in requests and not answer.ended]
        for ticket in leaving:
            if schedule.random() < 0.3 and not answers[ticket].cancelled:
                engine.cancel([ticket])
                answers[ticket].cancelled = True
        run(engine, answers)
        assert engine.running <= engine.queue.sequences
    assert not engine.session.live
    return sorted(
        (answer for answer in answers.values() if answer.request in requests),
        key=lambda answer: requests.index(answer.request),
    )


def know(monkeypatch: pytest.MonkeyPatch, texts: Sequence[tuple[tuple[int, ...], list[int]]]) -> None:
    """Drafts are mostly right, some are spoilt; of siblings the first is the right one, or the second."""
    whole = [[*prompt, *output] for prompt, output in texts]

    def one(text: list[int], tree: Tree) -> list[int]:
        known = next((some for some in whole if some[: len(text)] == text), text)
        drafts = []
        for draft, (parent, depth) in enumerate(zip(tree.parents, tree.depths[1:])):
            rank, place = draft - tree.parents.index(parent), len(text) + depth - 1
            right = known[place] if place < len(known) else 0
            wrong = (place * place + 3 * place) % 7 == 0
            drafts.append((right + (1 - rank if tree.parents.count(parent) > 1 else rank) + wrong) % VOCABULARY)
        return drafts

    def draft(self: Mixed, model: MaskModel, blocks: Blocks) -> Drafts:
        tree = blocks.tree.within(blocks.states.shape[1])
        return Drafts(torch.tensor([one(text, tree) for text in blocks.texts]))

    monkeypatch.setattr(Mixed, "draft", draft)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize("toy", [LLAMA, GPT2, GEMMA2, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_greedy_answers_are_plain_whatever_joins_and_leaves(
    toy: Toy, layout: LayoutName, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mtp, schedule = adapted(toy), random.Random(seed)
    prompts = random_prompts(LENGTHS, seed)
    requests = [Request(prompt, schedule.choice([1, 9, 16, 24])) for prompt in prompts]
    expected = [
        expected_output(mtp, toy, request.prompt, DecodeConfig(max_new_tokens=request.max_tokens))
        for request in requests
    ]
    know(monkeypatch, list(zip(prompts, expected)))
    answers = run_all(engine_of(mtp, layout), requests, schedule)
    assert [answer.tokens for answer in answers] == expected
    assert {answer.ended for answer in answers} == {"length"}
    assert len({token for answer in answers for token in answer.tokens}) >= DISTINCT
    tokens, steps = sum(len(answer.tokens) for answer in answers), sum(answer.steps for answer in answers)
    if layout in ("linear", "quadratic", "tree"):
        assert tokens > 1.2 * steps, "drafts that are never kept test little"


@pytest.mark.parametrize("layout", ALL)
def test_sampled_answers_follow_their_seeds_beside_greedy_ones(
    layout: LayoutName, monkeypatch: pytest.MonkeyPatch
) -> None:
    mtp, schedule = adapted(LLAMA), random.Random(1)
    prompts = random_prompts(LENGTHS, 7)
    samples = [*SAMPLES, SampleConfig()]
    requests = [Request(prompt, 16, samples[place % 4]) for place, prompt in enumerate(prompts)]
    alone = DecodeConfig(layout="plain", max_new_tokens=16)
    expected = [
        generate(mtp, [request.prompt], alone, GenerationHooks(chooser_of(request.sample)))[0].tokens
        for request in requests
    ]
    know(monkeypatch, list(zip(prompts, expected)))
    assert [answer.tokens for answer in run_all(engine_of(mtp, layout), requests, schedule)] == expected


def test_penalties_count_for_one_sequence_alone() -> None:
    mtp = adapted(LLAMA)
    heavy = PenaltyConfig(presence_penalty=2.0, frequency_penalty=1.0, repetition_penalty=1.3)
    prompts = random_prompts([26, 9])
    config = DecodeConfig(layout="plain", max_new_tokens=24)
    alone = [
        generate(mtp, prompts[:1], config, GenerationHooks(lambda indices, some=some: Greedy(Processing(some))))[
            0
        ].tokens
        for some in ((), penalties(heavy, len(prompts[0])), penalties(heavy, 0))
    ]
    assert len(set(map(tuple, alone))) == 3, "penalties matter, and so does which tokens they count"
    both = [Request(prompts[0], 24), Request(prompts[0], 24, penalties=heavy), Request(prompts[1], 24)]
    shared = run_all(engine_of(mtp, "quadratic"), both, random.Random(2))
    assert [answer.tokens for answer in shared[:2]] == alone[:2]


def test_presence_counts_once_and_frequency_each_time() -> None:
    ids, scores = torch.tensor([[3, 1, 2, 2]]), torch.zeros(1, 4)
    assert CountPenalty(0.5, 0.0, 1)(ids, scores).tolist() == [[0, -0.5, -0.5, 0]]
    assert CountPenalty(0.0, 0.25, 1)(ids, scores).tolist() == [[0, -0.25, -0.5, 0]]


def test_a_stop_ends_its_own_answer() -> None:
    mtp = adapted(LLAMA)
    prompts = random_prompts([6, 9])
    config = DecodeConfig(max_new_tokens=24)
    first, second = (expected_output(mtp, LLAMA, prompt, config) for prompt in prompts)
    unwanted = first[10]
    requests = [Request(prompts[0], 24, stop=lambda token: token == unwanted), Request(prompts[1], 24)]
    answers = run_all(engine_of(mtp, "quadratic"), requests, random.Random(0))
    assert answers[0].tokens == first[: first.index(unwanted) + 1]
    assert answers[0].ended == "stop"
    assert answers[1].tokens == second


def test_logits_are_those_that_chose_the_tokens() -> None:
    mtp = adapted(LLAMA)
    engine = engine_of(mtp, "quadratic")
    prompts = random_prompts([6, 9])
    wanted, _ = engine.submit([Request(prompts[0], 12, logits=True), Request(prompts[1], 12)])
    seen: list[RequestProgress] = []
    while engine.busy:
        seen += engine.step()
    mine = [told for told in seen if told.ticket == wanted]
    assert [int(row.argmax()) for told in mine for row in told.logits] == [t for told in mine for t in told.step.tokens]
    assert not any(told.logits for told in seen if told.ticket != wanted)


def test_the_order_is_fair_and_the_queue_is_finite() -> None:
    mtp = adapted(LLAMA)
    engine = engine_of(mtp, "linear", sequences=2, waiting=3)
    requests = [Request(prompt, 6) for prompt in random_prompts([5, 6, 7, 8, 9])]
    tickets = engine.submit(requests)
    with pytest.raises(BusyError, match="5 answers are waiting"):
        engine.submit(requests[:1])
    with pytest.raises(PromptError, match="6 answers were asked for and there is room for 5"):
        engine.submit([*requests, requests[0]])
    begun: list[int] = []
    while engine.busy:
        begun += [told.ticket for told in engine.step() if told.ticket not in begun]
    assert begun == tickets
    engine.submit(requests)


def test_a_cancelled_place_is_free_in_the_next_step() -> None:
    mtp = adapted(LLAMA)
    engine = engine_of(mtp, "linear", sequences=1)
    first, second = engine.submit([Request(prompt, 20) for prompt in random_prompts([5, 6])])
    assert [told.ticket for told in engine.step()] == [first]
    engine.cancel([first])
    assert [told.ticket for told in engine.step()] == [second]
    engine.cancel([second])
    assert engine.step() == []
    assert (engine.running, engine.waiting, engine.busy) == (0, 0, False)


def test_after_a_step_that_failed_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    mtp = adapted(LLAMA)
    engine = engine_of(mtp, "linear", sequences=1)
    requests = [Request(prompt, 12) for prompt in random_prompts([5, 6])]
    tickets = engine.submit(requests)
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(mtp, "see", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.step()
    lost = weakref.ref(engine.session)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_empty", lambda: pytest.fail("made while the old one may be held"))
        assert engine.abort() == tickets
    assert lost() is None, "its cache is given back before there is another"
    [answer] = run_all(engine, requests[:1], random.Random(0))
    assert answer.tokens == expected_output(mtp, LLAMA, requests[0].prompt, DecodeConfig(max_new_tokens=12))


def test_texts_that_do_not_fit_are_refused() -> None:
    mtp = adapted(LLAMA)
    engine = engine_of(mtp, "linear", max_length=20)
    engine.submit([Request((1,) * 19, 1)])
    for prompt, tokens in (((1,) * 19, 2), ((1,) * 20, 1), ((1,), 0), ((1,), -5), ((1,), 10**30)):
        with pytest.raises(PromptError, match="prompt and answer may have 20 together"):
            engine.submit([Request(prompt, tokens)])
    for prompt in ((), (VOCABULARY,), (-1,)):
        with pytest.raises(PromptError):
            engine.submit([Request(prompt, 1)])
    with pytest.raises(ConfigError, match="max_length is 300 and"):
        engine_of(mtp, "linear", max_length=300)
    assert engine_of(adapted(PHI3_LONGROPE), "linear").longest == SWITCH
