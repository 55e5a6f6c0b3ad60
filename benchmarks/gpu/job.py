"""What every stage is told, and where it writes: its results stand on disk, whole, after every row."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

RESERVE = 4.0
"""Seconds before its cap at which a stage begins nothing new, so that it ends by itself."""


class Skipped(Exception):
    """Why a stage has nothing to run on, in one sentence."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run of stages."""

    out: str
    """Folder of the results."""
    work: str
    """Folder of what the stages leave each other: caches, answers, the adapter."""
    caps: dict[str, float]
    """Seconds of each stage."""
    base: str = ""
    """The real base (SmolLM2-135M-Instruct): a folder, a .gguf file or a name; empty: there is none."""
    prompts: str = ""
    """File of prompts for the adapter's training data; empty: there is none."""
    adapter: str = ""
    """A trained model for `seconds` and `serve`, instead of the one that `adapter` trains."""
    commit: str = ""
    """What is measured, where the machine has no checkout."""
    dry_run: bool = False
    """Toys on a CPU: does everything run?"""

    @property
    def device(self) -> str:
        """Where everything runs."""
        return "cpu" if self.dry_run else "cuda"

    @property
    def dtype(self) -> str:
        """Dtype of the bases; a CPU without bfloat16 products would take ten times as long for it."""
        return "float32" if self.dry_run else "bfloat16"

    @property
    def trained(self) -> Path:
        """The adapter's folder."""
        return Path(self.work) / "adapter"


class Deadline:
    """The end of a stage's time."""

    def __init__(self, seconds: float) -> None:
        """`seconds` from now on, the reserve not counted."""
        self.end = monotonic() + max(seconds - RESERVE, seconds / 2)

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(self.end - monotonic(), 0.0)

    @property
    def over(self) -> bool:
        """Begin nothing new."""
        return self.left == 0


@dataclass(slots=True)
class Record:
    """The results of one stage, in one JSON file."""

    path: Path
    stage: str
    provenance: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    seconds: float = 0.0
    """Since the stage began; imports came before."""
    began: float = field(default_factory=monotonic)
    results: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    summary: list[str] = field(default_factory=list)
    """The stage in a few lines."""

    def add(self, **row: Any) -> None:
        """One more result."""
        self.results.append(row)
        self.write()

    def leave_out(self, what: str, why: str) -> None:
        """Something is not measured."""
        self.left_out.append(f"{what}: {why}")
        self.write()

    def say(self, line: str) -> None:
        """One more line of the summary."""
        self.summary.append(line)
        self.write()

    def close(self, status: str) -> None:
        """The stage has ended."""
        self.status = status
        self.write()

    def write(self) -> None:
        """The file as it is now, whole."""
        self.seconds = round(monotonic() - self.began, 1)
        content = asdict(self)
        del content["path"], content["began"]
        write_json(self.path, content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """One JSON object, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    fresh.replace(path)


def result_file(folder: str, stage: str) -> Path:
    """Where a stage writes."""
    return Path(folder) / f"{stage}.json"
