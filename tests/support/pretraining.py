"""A small pretraining run: its config, its data, its recipe, and what it left."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import PretrainConfig
from foresay.training.pretrain import pretrain
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.pretrain_run import PretrainUpdate

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
STEPS = 12
TRAIN: dict[str, Any] = {
    "steps": STEPS,
    "batch_tokens": 3 * 32,
    "length": 32,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "heldout": 2,
    "save_every": 3,
    "tracker": "none",
}
"""An epoch is shorter than the run."""
VARIANTS = [
    HeadsConfig(heads=3),
    HeadsConfig(heads=3, variant="causal"),
    HeadsConfig(heads=3, variant="anticausal"),
    HeadsConfig(heads=3, variant="linear"),
    HeadsConfig(heads=3, replicated=True),
]


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("design") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    rows: list[dict[str, str]] = [
        {"text": " ".join(map(str, range(n, n + 12))), "domain": "numbers"} for n in range(10)
    ]
    rows += [{"prompt": f"Say {word}.", "response": f"{word}! " * 3, "domain": "chat"} for word in ("yes", "no", "so")]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def recipe(design: Path, data: Path, out: Path, heads: HeadsConfig | None = None, **changes: Any) -> PretrainRecipe:
    return PretrainRecipe(
        str(design), (data,), out, "bytes", heads or HeadsConfig(), PretrainConfig(**{**TRAIN, **changes})
    )


def run(asked: PretrainRecipe, stop: int = 0) -> dict[int, str]:
    """The losses of every step, to the last bit; `stop` breaks the run off after that step."""
    losses: dict[int, str] = {}

    def watch(reading: PretrainUpdate) -> None:
        losses[reading.progress.step] = repr(reading.progress.losses)
        if reading.progress.step == stop:
            raise KeyboardInterrupt

    if stop:
        with pytest.raises(KeyboardInterrupt):
            pretrain(asked, watch)
    else:
        pretrain(asked, watch)
    return losses


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors") | load_file(folder / "foresay.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(design: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    pretrain(recipe(design, data, out, VARIANTS[0], save_every=0))
    return out


def held_in(folder: Path) -> HeadsModel:
    model = MultiTokenModel.from_pretrained(folder).heads_model
    assert isinstance(model, HeadsModel)
    return model
