"""Drafts that a prompt lookup found change no token: greedy, sampled by a seed, served, and inside transformers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from foresay.decoding.config import DecodeConfig, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planners import Planners
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import LOOKUP, MENU, PLAIN, Cost, Entry, Planner
from foresay.decoding.requests import Request
from foresay.decoding.sampling import chooser as choose_module
from foresay.decoding.sampling.chooser import Sampled, chooser_of
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_greedy
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation
from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig
from foresay.models.drafting import DraftingModel
from foresay.models.heads.model import HeadsModel
from tests.support.checks import assert_says
from tests.support.device_reads import check_one_read
from tests.support.toys import (
    GEMMA2,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    PHI3_LONGROPE,
    QWEN3_MOE,
    SWITCH,
    TOYS,
    Toy,
    own_output,
    redraw,
    with_adapter,
)

FEW = 6
"""Tokens of the vocabulary: so few that texts repeat by themselves."""
NEW = 40
BATCHES = ((9,), (14, 5), (12, 4, 1, 8, 13))
LAYOUTS = [PLAIN, Entry("linear", 3), Entry("quadratic", 2)]
"""What the planner takes where nothing was found."""


@cache
def repeating(toy: Toy) -> Toy:
    """The toy with few tokens."""
    return replace(toy, settings={**toy.settings, "vocab_size": FEW})


@cache
def repeating_model(toy: Toy) -> DraftingModel:
    return with_adapter(repeating(toy).model(), masks=3)


@cache
def heads_model() -> HeadsModel:
    model = HeadsModel.from_base(repeating(LLAMA).model(), HeadsConfig(heads=3))
    redraw(model.heads, 4)
    return model


def prompts_of(lengths: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(FEW) for _ in range(length)) for length in lengths]


def planner(layout: Entry, lookup: float = 1.0) -> Planner:
    """One that takes `layout`, and looks up as long as that promises anything."""
    costs = {PLAIN: Cost(1.0 if layout == PLAIN else 3.0, 3.0), layout: Cost(1.0, 1.0), LOOKUP: Cost(lookup, 1.0)}
    return Planner(costs, AcceptanceEstimate((0.3, 0.1, 0.03)))


def said_with_lookup(
    model: DraftingModel, prompts: Sequence[tuple[int, ...]], layout: Entry, new: int = NEW, **more: Any
) -> list[Generation]:
    config = DecodeConfig(layout="planned", max_new_tokens=new)
    return generate(model, prompts, config, GenerationHooks(planner=planner(layout), **more))


def kept_lookups(generations: Sequence[Generation]) -> set[int]:
    """Numbers of looked-up drafts that stayed in a step."""
    return {step.accepted for said in generations for step in said.steps if step.looked_up}


def check_greedy(toy: Toy, layout: Entry) -> None:
    kept: set[int] = set()
    rejected = False
    for seed, lengths in enumerate(BATCHES):
        prompts = prompts_of(lengths, seed)
        generations = said_with_lookup(repeating_model(toy), prompts, layout)
        for prompt, said in zip(prompts, generations):
            longest = min(len(prompt) + NEW, 256)
            assert_says(said, own_output(repeating(toy), prompt, longest), f"{toy.name}, {layout}, {len(prompt)}")
        kept |= kept_lookups(generations)
        steps = [step for said in generations for step in said.steps]
        rejected |= any(step.accepted < step.looked_up for step in steps if len(step.tokens) == step.accepted + 1)
    assert rejected, "none was wrong, so none was rejected"
    assert max(kept) > 1, "drafts that are never kept test little"


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_every_architecture(toy: Toy) -> None:
    check_greedy(toy, PLAIN)


@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=lambda entry: entry.label)
@pytest.mark.parametrize("toy", [LLAMA, GPT2, GEMMA2, QWEN3_MOE], ids=lambda toy: toy.name)
def test_in_place_of_the_models_own_drafts(toy: Toy, layout: Entry) -> None:
    check_greedy(toy, layout)


@pytest.mark.parametrize("layout", [PLAIN, Entry("quadratic", 2)], ids=lambda entry: entry.label)
def test_heads(layout: Entry) -> None:
    prompts = prompts_of(BATCHES[2])
    generations = said_with_lookup(heads_model(), prompts, layout)
    expected = [own_output(repeating(LLAMA), prompt, len(prompt) + NEW) for prompt in prompts]
    assert [said.tokens for said in generations] == expected
    assert max(kept_lookups(generations)) > 1


def test_a_model_without_drafts_of_its_own_looks_up_too() -> None:
    model = HeadsModel.from_base(repeating(LLAMA).model(), HeadsConfig(heads=1))
    prompts = prompts_of((12, 5))
    how = GenerationHooks(planner=Planner({PLAIN: Cost(1, 1), LOOKUP: Cost(1, 1)}, AcceptanceEstimate(())))
    generations = generate(model, prompts, DecodeConfig(layout="planned", max_new_tokens=NEW), how)
    assert [said.tokens for said in generations] == [
        own_output(repeating(LLAMA), prompt, len(prompt) + NEW) for prompt in prompts
    ]
    assert max(kept_lookups(generations)) > 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda entry: entry.label)
def test_up_to_the_end_of_the_context_and_across_a_switch_of_frequencies(layout: Entry) -> None:
    for toy, length in ((LLAMA, 230), (PHI3_LONGROPE, SWITCH - 9)):
        [prompt] = prompts_of((length,))
        [said] = said_with_lookup(repeating_model(toy), [prompt], layout)
        assert said.tokens == own_output(repeating(toy), prompt, min(length + NEW, 256))
        assert kept_lookups([said])


def test_it_can_be_switched_off() -> None:
    prompts = prompts_of(BATCHES[1])
    config = DecodeConfig(layout="planned", max_new_tokens=NEW, prompt_lookup=False)
    generations = generate(repeating_model(LLAMA), prompts, config, GenerationHooks(planner=planner(PLAIN)))
    assert not any(step.drafted for said in generations for step in said.steps)


def test_stop_tokens_end_a_text_inside_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = repeating_model(GPT2), prompts_of((14, 5, 9, 11))
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [4])
    for prompt, said in zip(prompts, said_with_lookup(model, prompts, PLAIN)):
        assert said.tokens == own_output(repeating(GPT2), prompt, len(prompt) + NEW, (4,))


@pytest.mark.parametrize("greedy_drafts", [False, True], ids=["drawn drafts", "best drafts"])
def test_with_drafts_that_are_not_drawn_a_seed_says_what_plain_decoding_says(greedy_drafts: bool) -> None:
    """Where others are drawn, looked-up ones come with all of q on themselves: see also test_sampling.py."""
    model, prompts = repeating_model(LLAMA), prompts_of(BATCHES[2])

    def chooser(indices: Sequence[int]) -> Sampled:
        return Sampled(SeededNumbers(7, indices), greedy_drafts=greedy_drafts)

    layout = PLAIN if not greedy_drafts else Entry("quadratic", 2)
    looked_up = said_with_lookup(model, prompts, layout, chooser=chooser)
    plain = generate(model, prompts, DecodeConfig(layout="plain", max_new_tokens=NEW), GenerationHooks(chooser))
    assert [said.tokens for said in looked_up] == [said.tokens for said in plain]
    assert max(kept_lookups(looked_up)) > 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda entry: entry.label)
@pytest.mark.parametrize("toy", [LLAMA, GEMMA2, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_served_answers_are_what_they_are_alone(toy: Toy, layout: Entry) -> None:
    model, rng = repeating_model(toy), random.Random(0)
    prompts = prompts_of([5, 1, 17, 9, 2, 30, 7, 12, 3], 3)
    samples = [SampleConfig(), SampleConfig(temperature=0.8, seed=3), SampleConfig(temperature=1.2, top_k=4, seed=4)]
    requests = [Request(prompt, rng.choice([9, 24, 40]), samples[n % 3]) for n, prompt in enumerate(prompts)]
    expected = [
        generate(
            model,
            [one.prompt],
            DecodeConfig(layout="plain", max_new_tokens=one.max_tokens),
            GenerationHooks(chooser_of(one.sample)),
        )[0].tokens
        for one in requests
    ]
    engine = Engine(model, DecodeConfig(), QueueConfig(sequences=4), planner(layout))
    answers: dict[int, list[int]] = {}
    kept, waiting = set(), list(requests)
    while waiting or engine.busy:
        for _ in range(rng.choice([0, 1, 2])):
            if waiting:
                answers[engine.submit([waiting.pop(0)])[0]] = []
        for told in engine.step():
            answers[told.ticket] += told.step.tokens
            kept |= {told.step.accepted} if told.step.looked_up else set()
    assert [answers[ticket] for ticket in sorted(answers)] == expected
    assert max(kept) > 1


class Drifting:
    """As on a server whose batch grows and shrinks: each step has a planner of its own, and each knows another menu."""

    def __init__(self) -> None:
        self.rng, self.menus = random.Random(5), set[frozenset[Entry]]()

    def at(self, sequences: int, length: int) -> Planner:
        """All have `plain`; of the rest some, at any cost."""
        menu = {PLAIN, *(entry for entry in MENU if entry.masks <= 3 and self.rng.random() < 0.5)}
        self.menus.add(frozenset(menu))
        costs = {entry: Cost(self.rng.uniform(0.2, 2), self.rng.uniform(0.2, 2)) for entry in MENU if entry in menu}
        return Planner(costs, AcceptanceEstimate((0.3, 0.1, 0.03)))


@pytest.mark.parametrize("toy", [LLAMA, GEMMA2], ids=lambda toy: toy.name)
def test_whatever_part_of_the_menu_is_known_from_step_to_step(toy: Toy) -> None:
    planners, prompts = Drifting(), prompts_of([5, 1, 17, 9, 2, 30], 3)
    config = DecodeConfig(layout="planned", max_new_tokens=NEW)
    generations = generate(repeating_model(toy), prompts, config, GenerationHooks(planner=planners))
    for prompt, said in zip(prompts, generations):
        assert_says(said, own_output(repeating(toy), prompt, len(prompt) + NEW), toy.name)
    assert max(kept_lookups(generations)) > 1
    assert len(planners.menus) > 10, "the same menu over and over tests little"
    assert len({LOOKUP in menu for menu in planners.menus}) == 2


def test_inside_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    step = Session.step

    def watched(self: Session) -> Any:
        made = step(self)
        kept.extend(one.accepted for _, one in made if one.looked_up)
        return made

    monkeypatch.setattr(Session, "step", watched)
    looks_up = planner(PLAIN)
    monkeypatch.setattr(Planners, "at", lambda *_: looks_up)
    model = MultiTokenModel(repeating_model(LLAMA), None, "toy")
    [prompt] = prompts_of((12,))
    said = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)
    assert said[0, len(prompt) :].tolist() == own_output(repeating(LLAMA), prompt, len(prompt) + NEW)
    assert max(kept) > 1


def test_a_step_reads_the_device_once() -> None:
    config = DecodeConfig(layout="planned", max_new_tokens=NEW)
    model, prompts = repeating_model(LLAMA), prompts_of(BATCHES[2])
    said_with_lookup(model, prompts, PLAIN)  # layouts are drawn when they are first met
    session = Session(model, prompts, config, how=GenerationHooks(planner=planner(PLAIN)))
    check_one_read(session, uploads=2)  # where the rows go, and what was found


Verifier = Callable[[Tensor, DraftsToVerify], Verification]


def believed(logits: Tensor, asked: DraftsToVerify) -> Verification:
    """Keeps whatever was looked up, unverified."""
    verdict = verify_greedy(logits, asked)
    if asked.tree.drafts != LOOKUP.drafts:
        return verdict
    rows = (asked.roots[:, None] + torch.arange(asked.tokens.shape[1])).clamp(max=asked.tokens.shape[1] - 1)
    said = torch.cat((asked.tokens[:, 1:], verdict.tokens[:, -1:]), dim=1).gather(1, rows)
    return Verification(asked.drafts, rows, said.scatter(1, asked.drafts[:, None], verdict.newest[:, None]))


def misplaced(logits: Tensor, asked: DraftsToVerify) -> Verification:
    """Judges a looked-up draft by the row after it."""
    return (
        verify_greedy(logits.roll(-1, dims=1), asked)
        if asked.tree.drafts == LOOKUP.drafts
        else verify_greedy(logits, asked)
    )


@pytest.mark.parametrize("broken", [believed, misplaced])
def test_a_verifier_that_believes_lookups_is_caught(broken: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module, "verify_greedy", broken)
    with pytest.raises(AssertionError, match="plain is"):
        check_greedy(LLAMA, PLAIN)
