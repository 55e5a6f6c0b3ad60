"""`foresay train` at the command line."""

import shutil
from dataclasses import fields
from typing import Any

import pytest
import yaml

from foresay.data.config import DataConfig
from foresay.model import MultiTokenModel
from foresay.models.config import LoadConfig, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.objectives import masks
from tests.support.commands import At, Run, contents, one_object


def test_train_prints_one_object(at: At, run: Run) -> None:
    said = run(*at.train("--json"))
    content = one_object(said)
    assert said.status == 0
    decoded = {"kept_step", "tokens_per_step", "mean_tokens_per_step", "acceptance", "decodes"}
    assert content.keys() == {
        "folder",
        "base",
        "dtype",
        "device",
        "examples",
        "steps",
        "seconds",
        "loss",
        "losses",
        *decoded,
    }
    assert [decode["step"] for decode in content["decodes"]] == [content["kept_step"]] == [2]
    assert [point["step"] for point in content["losses"]] == [1, 2]
    assert content["losses"][-1]["total"] == content["loss"]
    assert [entry["position"] for entry in content["acceptance"]] == [1, 2, 3]
    assert (content["folder"], content["examples"], content["steps"]) == (str(at.out), 10, 2)
    assert (content["dtype"], content["device"]) == ("float32", "cpu")
    assert set(content["tokens_per_step"]) == {"heldout"}
    # A live view that is drawn once a step belongs to a terminal; here it is a line a step.
    assert "step 1/2" in said.err
    assert "\x1b" not in said.err


def test_print_config_prints_what_config_reads(at: At, run: Run) -> None:
    """Defaults, file and flags, twice through."""
    file = at.file("rank: 5\nposition_weights: [1, 0.5]\ntrain-masks: false\nlearning_rate: 1.0e-05\n", "a.yaml")
    said = run(*at.train("--config", file, "--rank", "7", "--columns", "prompt=Q", "--print-config"))
    assert (said.status, said.err) == (0, "")
    content = yaml.safe_load(said.out)
    kinds = (MTPConfig, LossConfig, TrainConfig, DataConfig, LoadConfig)
    assert content.keys() == {entry.name for kind in kinds for entry in fields(kind)}
    asked = {"rank": 7, "position_weights": [1.0, 0.5], "train_masks": False, "learning_rate": 1e-5, "steps": 2}
    assert {name: content[name] for name in asked} == asked
    assert content["columns"] == ["prompt=Q"]
    assert not at.out.exists()
    again = ["train", "nano", "--data", at.data, "--out", at.out, "--config", at.file(said.out, "b.yaml")]
    assert run(*again, "--print-config").out == said.out


def test_training_is_a_function_of_its_seed(at: At, run: Run) -> None:
    for out, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert run(*at.train("--seed", seed, out=at.tmp / out)).status == 0
    one, two, three = ((at.tmp / out / "foresay.safetensors").read_bytes() for out in ("one", "two", "three"))
    assert one == two != three


def test_an_adapter_finds_its_base_from_anywhere(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(at.bases / "other", at.tmp / "here" / "base")
    monkeypatch.chdir(at.tmp / "here")
    assert run(*at.train(base="base")).status == 0
    monkeypatch.chdir(at.tmp)
    assert one_object(run("info", at.out, "--json"))["base"] == str((at.tmp / "here" / "base").resolve())


def test_overwriting_needs_the_flag(at: At, run: Run) -> None:
    shutil.copytree(at.adapter, at.out)
    before = contents(at.out)
    assert run(*at.train("--rank", "3")).status == 2
    assert contents(at.out) == before
    assert run(*at.train("--rank", "3", "--overwrite")).status == 0
    assert one_object(run("info", at.out, "--json"))["settings"]["rank"] == 3


def interrupt_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C in the middle of a step."""
    real, calls = masks.two_pass, [0]

    def two_pass(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            raise KeyboardInterrupt
        return real(*args)

    patch.setattr(masks, "two_pass", two_pass)


def test_interrupted_training_leaves_the_old_artefact(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(at.adapter, at.out)
    before = contents(at.tmp)
    interrupt_at(monkeypatch, 2)
    said = run(*at.train("--overwrite", "--rank", "3"))
    assert (said.status, said.out) == (130, "")
    assert said.err.endswith(
        "foresay: interrupted; nothing half written was left behind; the same command goes on from what is kept\n"
    )
    assert contents(at.tmp) == before


def test_interrupted_training_leaves_the_last_checkpoint(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 2)
    assert run(*at.train("--save-every", "1")).status == 130
    assert sorted(path.name for path in at.tmp.iterdir()) == ["out", "out.run"]
    assert MultiTokenModel.from_pretrained(at.out).provenance["settings"]["steps"] == 1
    said = run(*at.train("--save-every", "1", "--rank", "3"))
    assert (said.status, said.out) == (2, "")
    assert "rank was 2, is 3; go on as it was begun, or give --restart to begin anew" in said.err
    monkeypatch.undo()
    assert run(*at.train("--save-every", "1")).status == 0
    assert [path.name for path in at.tmp.iterdir()] == ["out"]
    assert MultiTokenModel.from_pretrained(at.out).provenance["settings"]["steps"] == 2


def test_full_disk_is_answered_in_one_sentence(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foresay.models.artefact.folder.save_file", full)
    said = run(*at.train())
    assert (said.status, said.out) == (2, "")
    assert "could not be written ([Errno 28] No space left on device); what stood there before" in said.err
    assert list(at.tmp.iterdir()) == []
