"""Commands run in this process: where a test finds things, and what a command left."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresay.models.base.load import load_tokenizer
from tests.support.toys import LLAMA

ROWS = [{"prompt": f"Say {number}.", "response": f"I say {number}, and {number} again."} for number in range(12)]
SMALL = [
    "--sequences",
    "2",
    "--anchors",
    "2",
    "--heldout",
    "2",
    "--num-masks",
    "3",
    "--rank",
    "2",
    "--max-length",
    "64",
    "--tracker",
    "none",
]
TRAIN = ["--steps", "2", "--tracker", "none", *SMALL]
SHORT = ["--max-new-tokens", "6"]
TWO = ["--layouts", "linear", "quadratic"]
LOADED = "base: nano in float32 on cpu\n"
CHECKED = ["--per-domain", "1", "--shift", "0.5", *TWO, *SHORT]


@dataclass(frozen=True)
class At:
    """Where a test finds things."""

    tmp: Path
    """Its own, where nothing may appear when a command is refused."""
    adapter: Path
    """Trained for two steps on nano; nobody changes it."""
    data: Path
    """Rows that can be trained on."""
    bases: Path
    """Folders of bases: other (a Llama), mamba, t5, bert."""

    @property
    def out(self) -> Path:
        return self.tmp / "out"

    def file(self, content: str | bytes, name: str = "input.jsonl") -> Path:
        path = self.tmp / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def train(self, *more: Any, base: Any = "nano", data: Path | None = None, out: Path | None = None) -> list[Any]:
        return ["train", base, "--data", data or self.data, "--out", out or self.out, *TRAIN, *more]


@dataclass(frozen=True)
class Said:
    """What a command left."""

    status: int
    out: str
    err: str


Run = Callable[..., Said]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and every folder as an empty one."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def one_object(said: Said) -> dict[str, Any]:
    """The JSON on stdout, where nothing else stands."""
    assert said.out.startswith("{\n")
    assert said.out.endswith("}\n")
    content: dict[str, Any] = json.loads(said.out)
    return content


BENCH = ["--repeats", "1", "--layouts", "quadratic", *SHORT]


def plain_base(at: At) -> Path:
    """The other base with a tokenizer that has no chat template."""
    folder = at.tmp / "plain-base"
    LLAMA.model(vocab_size=4096).save_pretrained(folder)
    tokenizer = load_tokenizer("nano")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder
