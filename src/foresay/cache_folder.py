"""Where foresay keeps what can be made again: measured costs, tokenised data, converted bases."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """`FORESAY_CACHE`, else `~/.cache/foresay`."""
    return Path(os.environ.get("FORESAY_CACHE") or "~/.cache/foresay").expanduser()


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills under a temporary name where there is none; it is there whole or not at all.

    Of two processes that make it at once, the one that is ready first wins: the content is the same. Raises OSError.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(fresh)
        for path in fresh.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        fresh.chmod(0o755)
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder
