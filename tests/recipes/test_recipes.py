"""Recipes are read, pass every check, say commands that parse, and costs that their formula gives."""

import re
import runpy
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from foresay.cli.config_file import with_config
from foresay.cli.main import command_for
from foresay.data.config import DataConfig
from foresay.models.config import MTPConfig
from foresay.training.config import LossConfig, TrainConfig

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
LARGE = ["llama-3.1-8b", "qwen3-0.6b"]


def parsed(arguments: list[str]) -> Any:
    """The command of a line."""
    return tyro.cli(command_for(arguments[0]), args=with_config(arguments), prog="foresay")


def commands(recipe: Path) -> list[list[str]]:
    """What follows `foresay` in the lines of a recipe's comments."""
    lines = re.findall(r"^#   (?:torchrun .* -m )?foresay (.*)$", recipe.read_text(encoding="utf-8"), flags=re.M)
    return [shlex.split(line) for line in lines]


def is_training(recipe: Path) -> bool:
    """The other files in `recipes` set up something else."""
    known = {name for kind in (MTPConfig, LossConfig, TrainConfig, DataConfig) for name in kind.__dataclass_fields__}
    return set(yaml.safe_load(recipe.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize("recipe", [file for file in RECIPES if is_training(file)], ids=lambda file: file.stem)
def test_a_recipe_is_read_as_it_stands(recipe: Path) -> None:
    command = parsed(["train", "nano", "--data", "d.jsonl", "--out", "o", "--config", str(recipe)])
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    effective = asdict(command.mtp) | asdict(command.losses) | asdict(command.train) | asdict(command.reading)
    for name, value in content.items():
        assert effective[name] == (tuple(value) if isinstance(value, list) else value), name


PRETRAINING = [ROOT / "recipes" / place for place in ("nano/pretrain.yaml", "heads/nano-4.yaml")]


@pytest.mark.parametrize("recipe", PRETRAINING, ids=lambda file: file.stem)
def test_a_recipe_of_pretraining_is_read_as_it_stands(recipe: Path) -> None:
    command = parsed(["pretrain", "design", "--data", "d.jsonl", "--out", "o", "--config", str(recipe)])
    effective = asdict(command.heads) | asdict(command.train) | asdict(command.reading)
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert content == {name: effective[name] for name in content}


def test_there_are_recipes_of_training() -> None:
    assert {"default", "paper", *LARGE} <= {file.stem for file in RECIPES if is_training(file)}


def test_default_is_the_defaults() -> None:
    content = yaml.safe_load((ROOT / "recipes" / "default.yaml").read_text(encoding="utf-8"))
    kinds = (MTPConfig(), LossConfig(), TrainConfig(), DataConfig())
    defaults = {name: value for kind in kinds for name, value in asdict(kind).items()}
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()} == defaults


def test_paper_is_the_paper() -> None:
    """Paper A, sections 3 and 4 and its set-up."""
    content = yaml.safe_load((ROOT / "recipes" / "paper.yaml").read_text(encoding="utf-8"))
    model = MTPConfig(**{name: content[name] for name in MTPConfig.__dataclass_fields__ if name in content})
    content["position_weights"] = tuple(content["position_weights"])
    losses = LossConfig(**{name: content[name] for name in LossConfig.__dataclass_fields__ if name in content})
    train = TrainConfig(**{name: content[name] for name in TrainConfig.__dataclass_fields__ if name in content})
    assert (model.num_masks, model.rank, model.scale, model.sampler, model.train_masks) == (8, 128, 1.0, "paper", False)
    assert (losses.base_weight, losses.sampler_weight, losses.consistency_weight) == (1.0, 1.0, 1.0)
    assert (losses.target, losses.real_rows, losses.distils, losses.position_weights) == ("label", True, False, ())
    assert (train.learning_rate, train.schedule, train.warmup_steps) == (2e-4, "constant", 5000)
    assert (train.steps, train.sequences, train.anchors, train.curriculum_steps) == (50000, 8, 0, 0)


@pytest.mark.parametrize("name", ["default", *LARGE])
def test_commands_of_a_recipe_parse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = ROOT / "recipes" / f"{name}.yaml"
    found = commands(recipe)
    trained = [parsed(line) for line in found if line[0] == "train"]
    assert [command.train.parallel for command in trained] == ["none", "ddp", "fsdp"]
    told = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for command in trained:
        taken = asdict(command.train) | asdict(command.losses) | asdict(command.loading)
        taken = {name: list(value) if isinstance(value, tuple) else value for name, value in taken.items()}
        own = told.keys() & taken.keys() - {"parallel", "dtype"}  # which some lines say otherwise
        assert {name: taken[name] for name in own} == {name: told[name] for name in own}
    assert any(line[:2] == ["data", "generate"] for line in found)
    for line in found:
        parsed(line)


@pytest.mark.parametrize("name", LARGE)
def test_the_cost_is_what_the_formula_gives(name: str) -> None:
    of_recipe = runpy.run_path(str(ROOT / "benchmarks" / "recipe_cost.py"))["of_recipe"]
    recipe = ROOT / "recipes" / f"{name}.yaml"
    for line in of_recipe(recipe, name).lines:
        assert f"#   {line}\n" in recipe.read_text(encoding="utf-8")


def test_the_formula_counts_known_weights() -> None:
    """Llama-3.1-8B and Qwen3-0.6B as their cards give them; paper A's LoRA at rank 128 and its sampler (Fig. 8)."""
    found = runpy.run_path(str(ROOT / "benchmarks" / "recipe_cost.py"))
    llama, qwen = (found["SHAPES"][name] for name in LARGE)
    assert llama.weights == pytest.approx(8.03e9, rel=1e-3)
    assert qwen.weights == pytest.approx(0.596e9, rel=1e-3)
    adapter = found["cost"](llama, MTPConfig(rank=128), TrainConfig()).adapter_weights
    assert adapter == 2_621_440 * 128 + 3 * 4096**2 + 8 * 4096
