"""Settings in YAML become flags."""

import json
from pathlib import Path

import pytest

from foresay.cli.config_file import with_adapter, with_config
from foresay.foundation.errors import ArtefactError, ConfigError
from tests.support.commands import At, Run


def test_settings_become_flags(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("rank: 4\nlearning-rate: 1e-3\nsampler: paper\ntrain_masks: false\nreal_rows: true\n")
    path.write_text(path.read_text() + "position_weights: [1, 0.5]\n")
    asked = with_config(["train", "nano", "--config", str(path), "--out", "o"])
    assert asked[:6] == ["train", "nano", "--config", str(path), "--out", "o"]
    flags = ["--rank", "4", "--learning-rate", "1e-3", "--sampler", "paper", "--no-train-masks", "--real-rows"]
    assert asked[6:] == [*flags, "--position-weights", "1", "0.5"]


@pytest.mark.parametrize("flags", [["--learning-rate", "1"], ["--learning_rate", "1"], ["--learning-rate=1"]])
def test_flags_win_over_settings(tmp_path: Path, flags: list[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("learning_rate: 1e-3\nrank: 4\n")
    asked = ["train", *flags, "--config", str(path)]
    assert with_config(asked) == [*asked, "--rank", "4"]


def test_switches_win_over_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train_masks: true\nreal_rows: true\n")
    asked = ["train", "--no-train-masks", "--config", str(path)]
    assert with_config(asked) == [*asked, "--real-rows"]
    path.write_text("train_masks: true\nreal_rows: false\n")
    asked = ["train", "--config", str(path)]
    assert with_config(asked) == [*asked, "--train-masks", "--no-real-rows"], "at its default a setting is given too"


def test_without_a_config_nothing_changes() -> None:
    assert with_config(["train", "nano", "--rank", "3"]) == ["train", "nano", "--rank", "3"]
    with pytest.raises(ConfigError, match="--config goes with"):
        with_config(["--config"])


def test_settings_reach_the_run(at: At, run: Run) -> None:
    settings = "rank: 5\nsampler: paper\nwarmup-steps: 1\nseed: 9\ntarget: label\ntrain_masks: false\n"
    config = at.file(settings + "position_weights: [1, 0.5]\n", "a.yaml")
    arguments = ["train", "nano", "--data", at.data, "--out", at.out, "--config", config]
    small = ["--steps", "1", "--sequences", "2", "--anchors", "2", "--num-masks", "2", "--max-length", "64"]
    assert run(*arguments, *small, "--seed", "4", "--heldout", "1").status == 0
    said = json.loads((at.out / "foresay.json").read_text())
    assert said["mtp"] == {
        "num_masks": 2,
        "rank": 5,
        "alpha": 0.0,
        "lora_targets": ["auto"],
        "sampler": "paper",
        "train_masks": False,
    }
    used = said["provenance"]["settings"]
    assert (used["train"]["warmup_steps"], used["train"]["seed"], used["train"]["steps"]) == (1, 4, 1)
    assert (used["losses"]["target"], used["losses"]["position_weights"]) == ("label", [1.0, 0.5])


def test_recipes_are_read() -> None:
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert with_config(["train", "--config", str(recipe)])[1:]


OF_NANO = {"--num-masks": "8", "--rank": "16", "--alpha": "0.0", "--lora-targets": "all", "--sampler": "residual"}
SWITCHES = ["--train-masks", "--family", "masks"]


@pytest.mark.parametrize("init", [["--init-from", "nano"], ["--init_from", "nano"], ["--init-from=nano"]])
def test_settings_of_an_adapter_become_flags(init: list[str]) -> None:
    asked = ["train", "nano", *init]
    own = [word for pair in OF_NANO.items() for word in pair]
    assert with_adapter(asked) == [*asked, *own, *SWITCHES]
    assert with_adapter([*asked, "--rank=3"]) == [
        *(*asked, "--rank=3"),
        *(word for name, value in OF_NANO.items() for word in (name, value) if name != "--rank"),
        *SWITCHES,
    ]


def test_a_file_wins_over_the_settings_of_an_adapter(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("num_masks: 12\ntrain_masks: true\n")
    asked = with_adapter(with_config(["train", "nano", "--init-from", "nano", "--config", str(path)]))
    assert asked.count("--num-masks") == 1
    assert asked[asked.index("--num-masks") + 1] == "12"
    assert asked[asked.index("--rank") + 1] == "16"
    assert asked.count("--train-masks") == 1


def test_where_no_adapter_is_begun_with_nothing_changes(tmp_path: Path) -> None:
    for asked in (["train", "nano", "--rank", "3"], ["generate", "--init-from", "nano"], ["train", "--init-from"]):
        assert with_adapter(asked) == asked
    other = ["train", "nano", "--init-from", "nano", "--family", "heads"]
    assert with_adapter(other) == other
    with pytest.raises(ArtefactError, match="there is no folder"):
        with_adapter(["train", "nano", "--init-from", str(tmp_path / "none")])


def test_a_run_begins_with_an_adapter(at: At, run: Run) -> None:
    small = ["--steps", "1", "--sequences", "2", "--anchors", "2", "--max-length", "64", "--heldout", "1"]
    begin = ["train", "nano", "--init-from", "nano", "--data", at.data, *small]
    begun = run(*begin, "--out", at.out, "--num-masks", "9")
    assert begun.status == 0
    assert "begins with the adapter nano, of 8 drafts, trained on nano" in " ".join(begun.err.split())
    said = json.loads((at.out / "foresay.json").read_text())
    assert (said["mtp"]["num_masks"], said["mtp"]["rank"]) == (9, 16)
    refused = run(
        "train", "nano", "--init-from", "nano", "--data", at.data, "--out", at.out / "b", "--rank", "3", *small
    )
    assert refused.status == 2
    assert "(rank 16 for 3)" in " ".join(refused.err.split())
