"""Sampled text has transformers' distribution on a trained model: a permutation test for every layout and setting.

Beside the enumeration on a tiny vocabulary (`test_sampling.py`): here are real drafts, real chances, whole batches.
"""

from dataclasses import replace
from functools import cache, partial

import pytest

from foresay.data.chat import encode
from foresay.decoding.config import DecodeConfig, LayoutName, SampleConfig
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import Cost, Entry, Planner
from foresay.decoding.sampling.chooser import Drafts, Sampled
from foresay.decoding.sampling.draft import Blocks
from foresay.evaluation.lossless import sampling
from foresay.evaluation.lossless.sampling import CAUGHT, LEVEL, Trial
from foresay.evaluation.statistics import Tokens, holm, p_value
from foresay.model import MultiTokenModel
from foresay.models.masks.model import MaskModel
from tests.support.layouts import DRAFTING

LAYOUTS: list[LayoutName] = [*DRAFTING, "planned"]
SETTINGS = {
    "temperature 0.7": SampleConfig(temperature=0.7),
    "temperature 1.2": SampleConfig(temperature=1.2),
    "top-p 0.9": SampleConfig(temperature=1.0, top_p=0.9),
}
SAMPLES = 256
"""Finds a total variation of 0.24 between the classes in one of the twelve tests, with 80 % chance: less than any of
the broken verifiers below has."""
PERMUTATIONS = 9_999
"""For p-values that are compared with `LEVEL`: 80 of them lie below it after the correction for twelve tests."""
NODES = 6
"""Drafts of a tree: it branches as one of 12 does, which is full with two masks, and costs half."""
COSTS = {Entry("plain"): Cost(1, 1), Entry("linear", 2): Cost(1.4, 1.1), Entry("quadratic", 1): Cost(1.5, 1.5)}
"""So close that what is accepted changes the layout from step to step."""


@cache
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano", dtype="float32")


def trial(setting: str) -> Trial:
    prompt = encode(nano().require_tokenizer(), "Write a function.")
    return Trial(nano(), tuple(prompt), SETTINGS[setting], SAMPLES, masks=2)


@cache
def reference(setting: str) -> Tokens:
    return trial(setting).reference()


def test_every_layout_draws_what_transformers_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """One test for all, as their p-values are corrected together: parts of it in several processes cost more."""
    monkeypatch.setattr(sampling, "DecodeConfig", partial(DecodeConfig, nodes=NODES))
    found: dict[tuple[str, LayoutName], float] = {}
    for setting in SETTINGS:
        for layout in LAYOUTS:
            planner = Planner(COSTS, AcceptanceEstimate((0.5, 0.4))) if layout == "planned" else None
            answers = trial(setting).answers(layout, planner)
            found[setting, layout] = p_value(answers, reference(setting), PERMUTATIONS)
    corrected = dict(zip(found, holm(list(found.values()))))
    assert {case: value for case, value in corrected.items() if value < LEVEL} == {}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_verifier_that_keeps_every_draft_is_caught(setting: str) -> None:
    assert p_value(trial(setting).control(), reference(setting)) < CAUGHT


@pytest.mark.parametrize("layout", ["linear", "quadratic"])
def test_drafts_judged_by_the_chances_of_their_neighbours_are_caught(
    layout: LayoutName, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Sampled.draft

    def draft(self: Sampled, model: MaskModel, blocks: Blocks) -> Drafts:
        drafts = sound(self, model, blocks)
        assert drafts.q is not None
        return replace(drafts, q=drafts.q.roll(1, dims=1))

    monkeypatch.setattr(Sampled, "draft", draft)
    assert p_value(trial("temperature 0.7").answers(layout), reference("temperature 0.7")) < CAUGHT
