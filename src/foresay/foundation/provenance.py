"""Where a number or an artefact comes from: commit, versions, machine, settings."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from foresay.foundation.machine import machine

PACKAGES = ("foresay", "torch", "transformers", "safetensors", "numpy")


def provenance(**settings: Any) -> dict[str, Any]:
    """Facts of this run, with `settings` as given but for absolute paths (`without_paths`), ready for JSON."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": dict(_versions()),
        "machine": machine(),
        "settings": without_paths(settings),
    }


def without_paths(told: Any) -> Any:
    """The same with absolute paths cut to their last parts: where a folder lies on this machine says nothing elsewhere.

    >>> without_paths({"base": "/home/me/tuned", "data": ["chats.jsonl"]})
    {'base': 'tuned', 'data': ['chats.jsonl']}
    """
    if isinstance(told, dict):
        return {name: without_paths(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return type(told)(without_paths(value) for value in told)
    return Path(told).name if isinstance(told, str | Path) and Path(told).is_absolute() else told


# Asked once: what runs is what was there when the process began, and a run writes many records.
@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


@cache
def _commit() -> str | None:
    """Commit of the checkout that foresay runs from, marked when it has changes; None when it is installed."""
    here = Path(__file__).parent
    try:
        revision = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--", str(here))
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{revision}{' with changes' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
