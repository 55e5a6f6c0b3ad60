"""Steps that are recorded and replayed say what steps computed one by one say, to the bit of every number."""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foresay.decoding.config import DecodeConfig, LayoutName, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planners import Planners
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import LOOKUP, PLAIN, Cost, Entry, Planner
from foresay.decoding.requests import Request
from foresay.decoding.sampling.chooser import Sampled, chooser_of
from foresay.decoding.sampling.logits_processors import Processing, warpers
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation
from foresay.models import drafting
from foresay.models.base.cuda_graphs import CannotRecordError
from foresay.models.config import HeadsConfig
from foresay.models.drafting import DraftingModel
from foresay.models.heads.model import HeadsModel
from tests.support.checks import NEW, expected_output, prompt_batches
from tests.support.tape import TapeRecorder
from tests.support.toys import (
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    MIXTRAL,
    Toy,
    adapted,
    random_prompts,
    redraw,
    with_adapter,
)

LAYOUTS: list[LayoutName] = ["plain", "linear", "quadratic", "tree", "planned"]
COSTS = {Entry("plain"): Cost(1, 1), Entry("linear", 2): Cost(1.38, 1.1), Entry("quadratic", 3): Cost(1.5, 1.5)}
"""So close that what is accepted changes the layout from step to step."""
SAMPLE = SampleConfig(temperature=0.9, top_k=40, top_p=0.95, seed=3)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeRecorder]:
    """Steps on the CPU are recorded on it."""
    recorder = TapeRecorder()
    monkeypatch.setattr(drafting, "recorder_for", lambda device: recorder)
    yield recorder
    for toy in (LLAMA, GEMMA3, GPT2, MISTRAL_WINDOW, MIXTRAL):
        forget(adapted(toy))


def forget(model: DraftingModel) -> None:
    """No step of the model was ever recorded."""
    model.record_steps(False)
    model.recordable = False


def how(sample: SampleConfig, layout: LayoutName, greedy_drafts: bool = False) -> GenerationHooks:
    planner = Planner(COSTS, AcceptanceEstimate((0.5, 0.4, 0.3))) if layout == "planned" else None
    if not sample.temperature:
        return GenerationHooks(planner=planner)
    processing = Processing(warpers(sample))
    return GenerationHooks(
        lambda indices: Sampled(SeededNumbers(3, indices), processing, greedy_drafts), planner=planner
    )


def say(
    model: DraftingModel,
    batch: Sequence[tuple[int, ...]],
    config: DecodeConfig,
    hows: Callable[[], GenerationHooks] = GenerationHooks,
) -> tuple[list[Generation], list[Generation]]:
    """Replayed and not."""
    replayed = generate(model, batch, config, hows())
    plain = DecodeConfig(layout=config.layout, masks=config.masks, max_new_tokens=config.max_new_tokens, graphs=False)
    return replayed, generate(model, batch, plain, hows())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("toy", [LLAMA, GEMMA3, MISTRAL_WINDOW, GPT2], ids=lambda toy: toy.name)
def test_greedy_steps(toy: Toy, layout: LayoutName, tape: TapeRecorder) -> None:
    mtp, config = adapted(toy), DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    for batch in prompt_batches():
        replayed, plain = say(mtp, batch, config, lambda: how(SampleConfig(), layout))
        assert replayed == plain
        assert [g.tokens for g in replayed] == [expected_output(mtp, toy, prompt, config) for prompt in batch]
    assert tape.replayed > NEW / 2
    assert tape.recorded < tape.replayed


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("greedy_drafts", [False, True], ids=["drawn drafts", "best drafts"])
def test_sampled_steps(layout: LayoutName, greedy_drafts: bool, tape: TapeRecorder) -> None:
    mtp, config = adapted(LLAMA), DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    for batch in prompt_batches():
        replayed, plain = say(mtp, batch, config, lambda: how(SAMPLE, layout, greedy_drafts))
        assert replayed == plain
    assert tape.replayed > NEW


@pytest.mark.parametrize("layout", [PLAIN, Entry("linear", 3), Entry("quadratic", 2)], ids=lambda entry: entry.label)
@pytest.mark.parametrize("sample", [SampleConfig(), SAMPLE], ids=["greedy", "drawn drafts"])
def test_steps_with_drafts_that_were_looked_up(sample: SampleConfig, layout: Entry, tape: TapeRecorder) -> None:
    mtp = with_adapter(LLAMA.model(vocab_size=6), masks=3)
    costs = {PLAIN: Cost(1 if layout == PLAIN else 3, 3), layout: Cost(1, 1), LOOKUP: Cost(1, 1)}

    def looks_up() -> GenerationHooks:
        return replace(how(sample, "planned"), planner=Planner(costs, AcceptanceEstimate((0.3, 0.1, 0.03))))

    prompts = [tuple(token % 6 for token in prompt) for prompt in random_prompts((12, 5, 9))]
    replayed, plain = say(mtp, prompts, DecodeConfig(masks=3, max_new_tokens=NEW), looks_up)
    assert replayed == plain
    assert max(step.accepted for said in replayed for step in said.steps if step.looked_up) > 1
    assert tape.replayed > tape.recorded


def test_steps_are_measured_between_recorded_ones(
    tape: TapeRecorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A measurement replays steps of its own: what is pending meanwhile must not lie where they write."""
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path))
    mtp, [prompt] = with_adapter(LLAMA.model(), masks=3), random_prompts((9,))
    held: list[int] = []
    hold = Session.hold

    def watched(self: Session) -> None:
        before = self.pending.tokens
        hold(self)
        held.append(before.data_ptr() != self.pending.tokens.data_ptr())

    monkeypatch.setattr(Session, "hold", watched)
    config = DecodeConfig(layout="planned", max_new_tokens=30)
    [said] = generate(mtp, [prompt], config, GenerationHooks(planner=Planners(mtp, share=1e9)))
    assert said.tokens == expected_output(mtp, LLAMA, prompt, config)
    assert held
    assert all(held)


@pytest.mark.parametrize("layout", ["linear", "quadratic", "tree"])
@pytest.mark.parametrize("variant", ["parallel", "linear"])
def test_heads(variant: str, layout: LayoutName, tape: TapeRecorder) -> None:
    model = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=3, variant=variant))  # type: ignore[arg-type]
    redraw(model.heads, 1)
    config = DecodeConfig(layout=layout, max_new_tokens=NEW)
    for batch in prompt_batches():
        replayed, plain = say(model, batch, config)
        assert replayed == plain
    assert tape.replayed > NEW / 2


def test_more_slots_are_another_recording_and_old_ones_are_used_again(tape: TapeRecorder) -> None:
    mtp = with_adapter(LLAMA.model(max_position_embeddings=1024), masks=3)
    config = DecodeConfig(layout="quadratic", masks=3, max_new_tokens=40)
    batch = random_prompts((240, 215, 9))
    plain = say(mtp, batch, config)[1]
    assert generate(mtp, batch, config) == plain
    assert {shape.slots for shape in mtp.step_graphs._steps} == {256, 512}
    before = tape.recorded
    assert generate(mtp, batch, config) == plain
    assert tape.recorded == before
    # Three live sequences and four have one shape, two another.
    generate(mtp, random_prompts((240, 215, 9, 17)), config)
    assert {shape.batch for shape in mtp.step_graphs._steps} <= {1, 2, 4}


def test_a_batch_that_chooses_in_several_ways_replays_its_forward(tape: TapeRecorder) -> None:
    samples = [SampleConfig(), SAMPLE, SampleConfig(temperature=0.7, seed=5), SAMPLE]
    requests = [
        Request(prompt, NEW + 3 * place, samples[place]) for place, prompt in enumerate(random_prompts((5, 9, 3, 12)))
    ]
    said, engine = answers(requests, True)
    assert said == answers(requests, False)[0]
    rules = {shape.rule is None for shape in engine.session.graphs._steps}  # type: ignore[union-attr]
    assert rules == {True, False}, "several rules at first, one at the end"
    assert tape.replayed > NEW / 2


def answers(requests: Sequence[Request], graphs: bool) -> tuple[dict[int, list[int]], Engine]:
    """What an engine says whose requests come one by one, and the engine."""
    mtp, waiting = adapted(LLAMA), list(requests)
    engine = Engine(
        mtp, DecodeConfig(layout="quadratic", masks=3, graphs=graphs), QueueConfig(sequences=4, max_length=128)
    )
    said: dict[int, list[int]] = {}
    while waiting or engine.busy:
        if waiting:
            engine.submit([waiting.pop(0)])
        for progress in engine.step():
            said.setdefault(progress.ticket, []).extend(progress.step.tokens)
    return said, engine


def test_answers_that_come_and_go(tape: TapeRecorder) -> None:
    requests = [Request(prompt, 10 + 7 * place) for place, prompt in enumerate(random_prompts((5, 9, 3, 12, 8, 4)))]
    assert answers(requests, True)[0] == answers(requests, False)[0]
    assert tape.replayed > 20


def test_sessions_side_by_side_do_not_share_a_cache(tape: TapeRecorder) -> None:
    mtp, config = adapted(LLAMA), DecodeConfig(layout="quadratic", masks=3, max_new_tokens=NEW)
    mtp.record_steps()
    prompts = random_prompts((5, 9))
    sessions = [Session(mtp, [prompt], config) for prompt in prompts]
    while any(session.live for session in sessions):
        for session in sessions:
            if session.live:
                session.step()
    for session, prompt in zip(sessions, prompts):
        assert session.done[0].tokens == expected_output(mtp, LLAMA, prompt, config)
    assert sessions[0].cache is not sessions[1].cache
    again = Session(mtp, [prompts[0]], config)
    assert again.cache is sessions[0].cache, "its user is done"


def test_weights_that_lie_elsewhere_are_recorded_anew(tape: TapeRecorder) -> None:
    mtp, config = with_adapter(LLAMA.model(), masks=3), DecodeConfig(layout="quadratic", masks=3, max_new_tokens=NEW)
    [batch] = [random_prompts((5, 9))]
    generate(mtp, batch, config)
    redrawn = [torch.randn_like(parameter) * 0.2 for parameter in mtp.adapter.parameters()]
    for parameter, other in zip(mtp.adapter.parameters(), redrawn):
        parameter.data = other
    gc.collect()
    before = tape.recorded
    replayed, plain = say(mtp, batch, config)
    assert replayed == plain
    assert tape.recorded > before


def test_what_cannot_be_recorded_is_said_once_and_computed(tape: TapeRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: TapeRecorder, work: Callable[[], None]) -> Callable[[], None]:
        raise CannotRecordError("nonzero waits for the device")

    monkeypatch.setattr(TapeRecorder, "record", refuse)
    mtp, config = adapted(LLAMA), DecodeConfig(layout="quadratic", masks=3, max_new_tokens=NEW)
    [batch] = [random_prompts((5, 9))]
    with pytest.warns(UserWarning, match="cannot be recorded as CUDA graphs .nonzero waits for the device."):
        said = generate(mtp, batch, config)
    assert [g.tokens for g in said] == [expected_output(mtp, LLAMA, prompt, config) for prompt in batch]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate(mtp, batch, config) == said


def test_experts_that_wait_for_the_device_are_computed(tape: TapeRecorder) -> None:
    mtp, config = adapted(MIXTRAL), DecodeConfig(layout="linear", masks=3, max_new_tokens=NEW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = generate(mtp, [(5, 3, 8)], config)
    assert said[0].tokens == expected_output(mtp, MIXTRAL, (5, 3, 8), config)


def test_nothing_is_recorded_where_nobody_asks() -> None:
    mtp, config = adapted(LLAMA), DecodeConfig(layout="quadratic", masks=3, max_new_tokens=NEW)
    generate(mtp, [(5, 3, 8)], config, GenerationHooks(chooser_of(SAMPLE)))
    assert mtp.recorder is mtp.step_graphs is None, "a CPU records nothing"
