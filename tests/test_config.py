"""Settings: what cannot be is refused when it is written down, and derived values are derived once."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from foresay.decoding.config import DecodeConfig, PenaltyConfig, SampleConfig
from foresay.foundation.errors import ConfigError
from foresay.models.config import MTPConfig
from foresay.training.config import LossConfig, TrainConfig, warm_up_notes

IMPOSSIBLE: list[tuple[type, dict[str, Any], str]] = [
    (MTPConfig, {"num_masks": 0}, "num_masks is 0; a block needs at least 1 mask"),
    (MTPConfig, {"rank": 0}, "rank is 0; LoRA needs a rank of at least 1"),
    (MTPConfig, {"alpha": -1.0}, "alpha is -1.0; give a positive alpha, or 0 for alpha = rank"),
    (TrainConfig, {"steps": 0}, "steps is 0; give 1 or more"),
    (TrainConfig, {"sequences": 0}, "sequences is 0; give 1 or more"),
    (TrainConfig, {"max_length": -5}, "max_length is -5; give 1 or more"),
    (TrainConfig, {"anchors": -1}, "anchors is -1; give 0 or more"),
    (TrainConfig, {"chunk_anchors": -1}, "chunk_anchors is -1; give 0 or more"),
    (TrainConfig, {"warmup_steps": -1}, "warmup_steps is -1; give 0 or more"),
    (TrainConfig, {"eval_every": -1}, "eval_every is -1; give 0 or more"),
    (TrainConfig, {"save_every": -1}, "save_every is -1; give 0 or more"),
    (TrainConfig, {"heldout": -1}, "heldout is -1; give 0 or more"),
    (TrainConfig, {"learning_rate": 0.0}, "learning_rate is 0.0; give a positive one"),
    (TrainConfig, {"learning_rate": float("nan")}, "learning_rate is nan; give a number"),
    (TrainConfig, {"learning_rate": float("inf")}, "learning_rate is inf; give a positive one"),
    (
        LossConfig,
        {"position_weights": (1.0, float("nan"))},
        "position_weights are (1.0, nan); give weights of 0 or more, not all of them 0",
    ),
    (TrainConfig, {"steps": 2.5}, "steps is 2.5; give a whole number"),
    (MTPConfig, {"rank": "8"}, "rank is '8'; give a whole number"),
    (MTPConfig, {"train_masks": 0}, "train_masks is 0; give True or False"),
    (TrainConfig, {"clip": 0.0}, "clip is 0.0; give a positive gradient norm"),
    (DecodeConfig, {"masks": -1}, "masks is -1; give 1 or more, or 0 for the trained number"),
    (DecodeConfig, {"branches": 0}, "branches is 0; give 1 or more"),
    (DecodeConfig, {"nodes": 0}, "nodes is 0; give 1 or more"),
    (DecodeConfig, {"shortlist": -1}, "shortlist is -1; give a number of tokens, 0 for all, or 'auto'"),
    (DecodeConfig, {"shortlist": "many"}, "shortlist is 'many'; give a number of tokens, 0 for all, or 'auto'"),
    (DecodeConfig, {"shortlist": 2}, "shortlist is 2 for 3 branches; give as many or more, or 0"),
    (DecodeConfig, {"nodes": 1025}, "nodes is 1025; give at most 1024"),
    (DecodeConfig, {"max_new_tokens": 0}, "max_new_tokens is 0; give at least 1"),
    (DecodeConfig, {"max_new_tokens": "5"}, "max_new_tokens is '5'; give a whole number"),
    (DecodeConfig, {"max_new_tokens": None}, "max_new_tokens is None; give a whole number"),
    (DecodeConfig, {"max_new_tokens": True}, "max_new_tokens is True; give a whole number"),
    (SampleConfig, {"temperature": "0.8"}, "temperature is '0.8'; give a number"),
    (SampleConfig, {"temperature": float("nan")}, "temperature is nan; give a number"),
    (SampleConfig, {"seed": 2**63}, f"seed is {2**63}; give a number from 0 to 2**63 - 1"),
    (PenaltyConfig, {"presence_penalty": float("nan")}, "presence_penalty is nan; give a number"),
    (PenaltyConfig, {"frequency_penalty": float("inf")}, "frequency_penalty is inf; give a finite number"),
]
# A misspelt choice must not pass as the other one; Python and foresay.json have no command line to check it.
MISSPELT: list[tuple[type, dict[str, Any], str]] = [
    (MTPConfig, {"sampler": "papre"}, "sampler"),
    (LossConfig, {"target": "labels"}, "target"),
    (LossConfig, {"base_weight": -1.0}, "base_weight"),
    (TrainConfig, {"schedule": "linear"}, "schedule"),
    (TrainConfig, {"dtype": "int8"}, "dtype"),
    (TrainConfig, {"weight_decay": -1.0}, "weight_decay"),
    (DecodeConfig, {"layout": "diagonal"}, "layout"),
]


def ids(value: Any) -> str | None:
    return value.__name__ if isinstance(value, type) else str(value) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("kind", "settings", "message"), IMPOSSIBLE, ids=ids)
def test_impossible_value_is_refused_with_the_cure(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        kind(**settings)
    assert str(refusal.value) == message


@pytest.mark.parametrize(("kind", "settings", "message"), MISSPELT, ids=ids)
def test_misspelt_choice_is_refused(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


@pytest.mark.parametrize("kind", [MTPConfig, LossConfig, TrainConfig, DecodeConfig])
def test_defaults_are_possible_and_frozen(kind: type) -> None:
    config = kind()
    with pytest.raises(FrozenInstanceError):
        setattr(config, next(iter(kind.__dataclass_fields__)), 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'steppes'"):
        kind(steppes=1)


def test_smallest_values_are_possible() -> None:
    MTPConfig(num_masks=1, rank=1)
    zeros = dict.fromkeys(("anchors", "chunk_anchors", "warmup_steps", "eval_every", "save_every", "heldout"), 0)
    TrainConfig(steps=1, sequences=1, max_length=1, **zeros)
    DecodeConfig(masks=0, max_new_tokens=1, branches=1, nodes=1)


@pytest.mark.parametrize(("alpha", "lora_alpha", "scale"), [(0.0, 16.0, 1.0), (16.0, 16.0, 1.0), (8.0, 8.0, 0.5)])
def test_scale_is_alpha_over_rank(alpha: float, lora_alpha: float, scale: float) -> None:
    config = MTPConfig(rank=16, alpha=alpha)
    assert config.lora_alpha == lora_alpha
    assert config.scale == scale


def test_drafts_come_from_a_shortlist_where_the_vocabulary_is_large() -> None:
    sizes = {given: [DecodeConfig(shortlist=given).shortlist_size(of) for of in (96, 16_383, 16_384, 128_000)]
             for given in ("auto", 0, 256)}  # fmt: skip
    assert sizes == {"auto": [0, 0, 64, 64], 0: [0] * 4, 256: [96, 256, 256, 256]}
    assert DecodeConfig(branches=80).shortlist_size(50_000) == 80, "a tree needs as many tokens as it has branches"


@pytest.mark.parametrize(("steps", "warm", "said"), [(50, 50, 1), (51, 50, 0), (1, 0, 0)])
def test_run_that_never_gets_warm_says_so(steps: int, warm: int, said: int) -> None:
    notes = warm_up_notes(TrainConfig(steps=steps, warmup_steps=warm))
    assert len(notes) == said
    assert all(f"warms up for {warm} steps and the run has {steps}" in note for note in notes)
