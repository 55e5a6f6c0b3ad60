"""The state of a run on disk, so that a run killed at any moment goes on exactly where its last checkpoint stands.

A checkpoint is a folder: what is trained and its optimizers as torch's distributed checkpoint (which any number of
processes may go on from, shards or none), and `state.json` with the hash of every file, what the run is, and how far
it came. Batches, anchors and rates are functions of seed and step, so the step is all there is to know of them. It is
written under another name and renamed when it is whole.
"""

import json
import logging
import secrets
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from foresay.foundation.errors import ArtefactError, in_words
from foresay.foundation.files import install, put, remove_folder
from foresay.foundation.hashes import file_hash
from foresay.training.loop.fsdp import is_sharded
from foresay.training.loop.progress import Progress

STATE, PREFIX, RUN = "state.json", "checkpoint-", "run.json"
log = logging.getLogger("foresay")


def run_folder(out: Path) -> Path:
    """Where the state of a run is kept until it is over: beside `out`."""
    out = out.resolve()
    return out.with_name(f"{out.name}.run")


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    folder: Path
    run: dict[str, Any]
    """What the run is, ready for JSON: another run may not go on from here."""
    keep: int = 2
    """Checkpoints that stay; the older ones are removed."""

    def claim(self) -> str:
        """The id of the run that goes on here, else of a new one, written down.

        With it the folder says that the run has begun: it may go on before its first checkpoint.
        """
        path = self.folder / RUN
        try:
            known: str = json.loads(path.read_text(encoding="utf-8"))["id"]
            return known
        except FileNotFoundError:
            pass
        made = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        with in_words(ArtefactError, f"{path} could not be written", "nothing was begun"):
            put(path, json.dumps({"id": made}))
        return made

    def save(self, progress: Progress, trained: nn.Module, optimizers: Sequence[Optimizer], leads: bool = True) -> None:
        """Write one, whole or not at all: the process that `leads`, alone unless what is `trained` is in shards.

        Raises ArtefactError.
        """
        final = self.folder / f"{PREFIX}{progress.step:08d}"
        fresh = self.folder / f".{final.name}"
        stand = "those before it stand"
        with in_words(ArtefactError, f"checkpoint {final} could not be written", stand, CheckpointException):
            if leads:
                shutil.rmtree(fresh, ignore_errors=True)
                # Others may have made it: all do so before any of them writes.
                fresh.mkdir(parents=True, exist_ok=True)
            with _quiet():
                written = save(_tensors(trained, optimizers), checkpoint_id=fresh, no_dist=not is_sharded(trained))
            if not leads:
                return
            _check_whole(fresh, written)
            said = {"run": self.run, "progress": asdict(progress), "files": _hashes(fresh)}
            put(fresh / STATE, json.dumps(said, indent=2))
            install(fresh, final)
            for old in self._found()[self.keep :]:
                shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> Path | None:
        """The newest whole checkpoint; None when there is no checkpoint at all.

        A torn one is passed over with a warning. Raises ArtefactError when none is whole, or when it is another
        run's, with what differs.
        """
        found = self._found()
        for path in found:
            state = _read(path)
            if state is None:
                log.warning("checkpoint %s is torn; looking for the one before it", path)
                continue
            self._check_run(state["run"])
            return path
        if found:
            raise ArtefactError(f"no checkpoint in {self.folder} is whole; give --restart to begin anew")
        return None

    def load(self, path: Path, trained: nn.Module, optimizers: Sequence[Optimizer]) -> Progress:
        """Fill what is trained and its optimizers from a checkpoint and say how far it was."""
        state = _read(path)
        if state is None:
            raise ArtefactError(f"checkpoint {path} cannot be read; every process needs the folder {self.folder}")
        tensors = _tensors(trained, optimizers)
        with _quiet():
            load(tensors, checkpoint_id=path, no_dist=True)
        set_state_dict(trained, optimizers, model_state_dict=tensors["adapter"], optim_state_dict=tensors["optimizer"])
        return Progress.read(state["progress"])

    def remove(self) -> None:
        """Remove every checkpoint: the run is over, or begins anew."""
        remove_folder(self.folder)

    def _found(self) -> list[Path]:
        """Checkpoints with their final name, newest first."""
        return sorted(self.folder.glob(f"{PREFIX}*"), reverse=True)

    def _check_run(self, said: dict[str, Any]) -> None:
        differs = list(_differences(said, json.loads(json.dumps(self.run))))
        if differs:
            raise ArtefactError(
                f"{self.folder} holds a run that was begun otherwise: {'; '.join(differs)}; "
                "go on as it was begun, or give --restart to begin anew"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The leading process writes alone, as intended."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _tensors(trained: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    model, optim = get_state_dict(trained, optimizers)
    return {"adapter": model, "optimizer": optim}


def _check_whole(fresh: Path, written: Metadata) -> None:
    """Raise ArtefactError where another process wrote its part elsewhere."""
    names = {part.relative_path for part in written.storage_data.values()}
    if away := [name for name in names if not (fresh / name).exists()]:
        raise ArtefactError(
            f"{', '.join(sorted(away))} of the checkpoint {fresh} lies on another machine; give --out on a disk that "
            "all processes share"
        )


def _read(path: Path) -> dict[str, Any] | None:
    """What `state.json` says, None unless every file is there as it was written."""
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        return state if state["files"] == _hashes(path) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashes(folder: Path) -> dict[str, str]:
    """Hash of every file but `state.json`."""
    return {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.name != STATE}


def _differences(was: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every setting that is not what it was, in words."""
    for name in sorted(was.keys() | now.keys()):
        old, new = was.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} was {json.dumps(old)}, is {json.dumps(new)}"
