"""A trained adapter, bases of other kinds, and a way to run commands."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from foresay.cli.main import main
from foresay.models.base.load import load_tokenizer
from tests.support.commands import ROWS, TRAIN, At, Said
from tests.support.toys import LLAMA


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data and the adapter that every test uses."""
    folder = tmp_path_factory.mktemp("shared")
    data = folder / "data.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    assert main(["train", "nano", "--data", str(data), "--out", str(folder / "adapter"), *TRAIN]) == 0
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases with nano's tokenizer: one of the right kind and others."""
    folder = tmp_path_factory.mktemp("bases")
    models = {
        "other": LLAMA.model(vocab_size=4096),
        "mamba": tiny("Mamba", hidden_size=32, num_hidden_layers=2),
        "bert": tiny("Bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48),
        "t5": tiny("T5", d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        load_tokenizer("nano").save_pretrained(folder / name)
    return folder


def tiny(kind: str, **settings: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{kind}Config")(vocab_size=4096, **settings)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config)
    return model


@pytest.fixture
def at(shared: Path, bases: Path, tmp_path: Path) -> At:
    return At(tmp_path, shared / "adapter", shared / "data.jsonl", bases)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """Runs a command in this process."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    threads = torch.get_num_threads()

    def command(*arguments: Any) -> Said:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # tyro's way, after a misspelt option and after --help
            status = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    yield command
    torch.set_num_threads(threads)
