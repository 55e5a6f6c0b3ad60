"""Every engine says what the local one says; one that is not installed, or cannot do it, says so."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foresay.cli import main as cli
from foresay.data.chat import encode
from foresay.data.source import Source
from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.foundation.errors import ConfigError, DataError
from foresay.models.config import LoadConfig
from foresay.training.config import DistilConfig
from foresay.training.distillation.backend import Answer, AnswerBackend, PromptRow, Task, groups
from foresay.training.distillation.distill import SETTINGS, Distiller
from foresay.training.distillation.local import LocalEngine
from foresay.training.distillation.on_ray import RayEngine
from foresay.training.distillation.on_vllm import VllmEngine

TASK = Task("nano", decode=DecodeConfig(max_new_tokens=8, layout="quadratic", masks=2), batch_size=2)
QUESTIONS = [f"How many pens are {number} pens and {'many ' * (number % 3)}more?" for number in range(7)]


@pytest.fixture(scope="module")
def local() -> LocalEngine:
    return LocalEngine.open(TASK)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A small cluster on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is an extra; pip install 'foresay[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    small = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False, "log_to_driver": False}
    ray.init(**small, _node_ip_address="127.0.0.1")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def vllm() -> Iterator[VllmEngine]:
    """vLLM on a CPU, with little memory; started once, as that takes half a minute."""
    pytest.importorskip("vllm", reason="vLLM is an extra; pip install 'foresay[vllm]'")
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    engine = VllmEngine(TASK)
    yield engine
    engine.engine.llm_engine.engine_core.shutdown()


def asked(engine: AnswerBackend) -> list[PromptRow]:
    return [PromptRow(row, tuple(encode(engine.tokenizer, text))) for row, text in enumerate(QUESTIONS, 5)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in QUESTIONS))
    return path


def answers(engine: AnswerBackend) -> dict[int, Answer]:
    """All that an engine says."""
    return {row: said for some in engine.answer(asked(engine)) for row, said in some.items()}


def shards(engine: AnswerBackend, data: Path, out: Path) -> dict[str, bytes]:
    """The files of answers that an engine leaves."""
    Distiller(engine, (Source(str(data)),), out, DistilConfig(shard_rows=3)).run()
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != SETTINGS}


@pytest.mark.parametrize("sample", [SampleConfig(), SampleConfig(temperature=1.0, seed=3)], ids=["greedy", "sampled"])
def test_ray_leaves_the_same_files(
    ray: Any, local: LocalEngine, data: Path, tmp_path: Path, sample: SampleConfig
) -> None:
    """Draws too: they depend on the row, and batches are the same."""
    task = replace(TASK, sample=sample)
    engine = RayEngine(task, workers=2)
    assert (engine.tokenizer.get_vocab(), engine.context) == (local.tokenizer.get_vocab(), local.context)
    made = shards(engine, data, tmp_path / "ray")
    assert len(made) == 3
    assert made == shards(LocalEngine(local.model, task), data, tmp_path / "local")
    with pytest.raises(DataError, match="was begun with engine ray, now local"):
        shards(LocalEngine(local.model, task), data, tmp_path / "ray")


def test_a_ray_worker_that_dies_is_replaced(ray: Any, local: LocalEngine) -> None:
    engine = RayEngine(TASK, workers=1)
    [worker] = engine.workers._idle_actors
    ray.kill(worker, no_restart=False)
    assert answers(engine) == answers(local)


def test_vllm_says_the_same(vllm: VllmEngine, local: LocalEngine) -> None:
    said = answers(vllm)
    assert said == answers(local)
    # Stop tokens are told too: training needs to see them.
    vllm.task = replace(TASK, decode=replace(TASK.decode, max_new_tokens=200))
    said = answers(vllm)
    assert "stop" in {one.ended for one in said.values()}
    assert said == answers(LocalEngine(local.model, vllm.task))


def test_draws_of_vllm_hang_on_seed_and_row(vllm: VllmEngine) -> None:
    vllm.task = replace(TASK, sample=SampleConfig(temperature=1.5, seed=3))
    said = answers(vllm)
    assert vllm.answer(asked(vllm)[::-1]) == said
    assert len({tuple(one.tokens) for one in said.values()}) == len(QUESTIONS)
    vllm.task = replace(TASK, sample=SampleConfig(temperature=1.5, seed=4))
    assert vllm.answer(asked(vllm)) != said


def test_groups_hold_every_prompt_once_by_length() -> None:
    prompts = [PromptRow(row, (0,) * length) for row, length in enumerate([5, 1, 3, 3, 2])]
    assert [[one.number for one in group] for group in groups(prompts, 2)] == [[1, 4], [2, 3], [0]]


@pytest.mark.parametrize("name", ["vllm", "ray"])
def test_an_engine_that_is_not_installed(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    asked = ["data", "generate", "nano", "--data", str(data), "--out", str(tmp_path / "own"), "--engine", name]
    assert cli.main(asked) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"not installed here; run pip install 'foresay[{name}]'" in said
    assert not (tmp_path / "own").exists()


def test_vllm_takes_no_lora_and_quantises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", sys)
    with pytest.raises(ConfigError, match="takes a base as it comes; for a LoRA or --quantize give --engine local"):
        VllmEngine(replace(TASK, loading=LoadConfig(quantize="int8")))
