"""The scripts that compare trainings: which runs they make, what they keep, and how they count."""

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from foresay.data.example import Example
from foresay.data.prompts import Prompt
from foresay.evaluation.studies.study import STARTS, Cell
from foresay.evaluation.studies.token_ranks import true_ranks
from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.objectives.batches import collate
from foresay.training.recipe import Recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def learning(asked: list[Recipe]) -> Any:
    """A training that is as good as its steps and its rate, 2e-3 being best; what it is asked for goes to `asked`."""

    def train(recipe: Recipe, watch: Any, prompts: Sequence[Prompt]) -> Any:
        asked.append(recipe)
        watch(SimpleNamespace(progress=SimpleNamespace(losses=SimpleNamespace(rows=10.0))))
        rate = recipe.train.steps - 1000 * abs(recipe.train.learning_rate - 2e-3)
        return SimpleNamespace(loss=1.0, tokens_per_step={prompt.domain: rate for prompt in prompts})

    return train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "Two plus two equals four."}\n')
    return path


def test_recipes_are_compared_at_the_rates_of_their_trials(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, asked = script("paper_against_default", monkeypatch), list[Recipe]()
    monkeypatch.setattr(module, "train", learning(asked))
    monkeypatch.setattr(module.Comparison, "tested", lambda self, cell: cell | {"test": cell["dev"]})
    own = {"data": data, "steps": 30, "trial_steps": 10, "rank": 4, "rates": (1e-3, 2e-3, 4e-3), "seeds": (0, 1)}
    module.Comparison(out=tmp_path / "out", **own).run()
    made = [(one.mtp.sampler, one.train.steps, one.train.learning_rate, one.train.seed) for one in asked]  # type: ignore[union-attr]
    tried = [(10, rate, 0) for rate in (1e-3, 2e-3, 4e-3)]
    each = [*tried, (30, 2e-3, 0), (30, 2e-3, 1)]
    assert made == [(sampler, *run) for sampler in ("paper", "residual") for run in each]
    assert {one.mtp.rank for one in asked} == {4}  # type: ignore[union-attr]
    said = json.loads(capsys.readouterr().out)
    assert said["summary"] == {side: {"rate": 2e-3, "test": [30.0, 30.0]} for side in ("paper", "default")}
    assert len(said["cells"]) == 2 * len(each)
    module.Comparison(out=tmp_path / "out", **own).run()
    assert len(asked) == 2 * len(each)  # nothing is trained twice
    module.Comparison(out=tmp_path / "out", **own | {"sequences": 2}).run()
    assert len(asked) == 4 * len(each)


def test_the_papers_side_is_the_studies_start(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("paper_against_default", monkeypatch)
    paper, losses = STARTS["paper"]
    asked = module.Comparison(data=Path("rows"), out=Path("out"), rank=paper.rank)
    assert asked.settings("paper") == (paper, losses)


def test_masks_weigh_as_much_as_heads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, asked = script("masks_against_heads", monkeypatch), list[Recipe]()
    monkeypatch.setattr(module, "train", learning(asked))
    monkeypatch.setattr(
        module, "MultiTokenModel", SimpleNamespace(from_base=MultiTokenModel.from_base, from_pretrained=Path)
    )
    monkeypatch.setattr(module.Comparison, "results", lambda self, model: [str(model)])
    own = {"data": data, "heads": (3,), "steps": 30, "trial_steps": 10, "anchors": 0, "rates": (1e-3, 2e-3)}
    module.Comparison(out=tmp_path / "out", **own).run()
    heads, masks = json.loads(capsys.readouterr().out)["rows"]
    assert (heads["drafts"], masks["drafts"]) == (2, 2)
    assert masks["weights"] == pytest.approx(heads["weights"], rel=module.NEAR)
    assert (heads["rate"], heads["loss_rows"]) == (2e-3, 10.0)
    made = [(isinstance(one.mtp, HeadsConfig), one.train.anchors, one.train.steps) for one in asked]
    assert made == [(True, TrainConfig().anchors, n) for n in (10, 10, 30)] + [(False, 0, n) for n in (10, 10, 30)]


def test_targets_of_lora_weigh_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, asked = script("lora_targets", monkeypatch), list[Recipe]()

    def train(recipe: Recipe, watch: Any) -> Any:
        asked.append(recipe)
        MultiTokenModel.from_base(recipe.base, recipe.mtp, dtype="float32").save_pretrained(recipe.out)
        return SimpleNamespace(loss=1.0)

    monkeypatch.setattr(module, "train", train)
    own = {"data": data, "rounds": 0, "steps": 20, "per_domain": 1, "max_new_tokens": 4, "targets": ("all", "mlp")}
    for _ in range(2):
        module.Comparison(out=tmp_path / "out", **own).run()
        every, mlp = json.loads(capsys.readouterr().out)["rows"]
        assert (every["rank"], every["targets"], mlp["targets"]) == (16, "all", "mlp")
        assert mlp["rank"] > 16
        assert mlp["weights"] == pytest.approx(every["weights"], rel=module.NEAR)
        assert [found["entry"] for found in mlp["entries"]][:2] == ["linear 2", "linear 4"]
        assert all(found["tokens_per_step"] >= 1 for found in mlp["entries"])
    assert [one.train.steps for one in asked] == [20, 20]  # nothing is trained twice
    assert {one.train.warmup_steps for one in asked} == {2}


def test_heads_are_counted_as_ranks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("heads_by_mask", monkeypatch)
    model = MultiTokenModel.from_pretrained("nano", dtype="float32")
    ids = tuple(
        model.require_tokenizer().encode("Once upon a time there was a little dog named Max, who liked to run.")
    )
    batch = collate([Example(ids, tuple(t > 0 for t in range(len(ids))))], 0, torch.Generator(), torch.device("cpu"))
    core, masks = model.mask_model, model.mask_model.config.num_masks
    found = module.right(core, batch)
    whole = len(ids) - 1 - masks
    with torch.no_grad():
        ranks, _ = true_ranks(core, batch, Cell(label="", mtp=core.config, losses=LossConfig(), train=TrainConfig()))
    assert found["sampler head"].tolist() == (ranks == 1)[: whole * masks].view(-1, masks).tolist()
    assert found["sampler head"].any()
    assert found["base head"].tolist() != found["sampler head"].tolist() != found["sampler head, wrong token"].tolist()


def test_a_mask_counts_where_all_before_it_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    found = script("heads_by_mask", monkeypatch).summed(torch.tensor([[1.0, 1, 0], [1, 0, 1]]))
    assert found == {
        "blocks": 2,
        "right": [1.0, 0.5, 0.5],
        "right_with_all_before": [1.0, 0.5, 0.0],
        "tokens_per_step": 2.5,
    }
