"""Where foresay keeps what can be made again: measured costs, tokenised data."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`FORESAY_CACHE`, else `~/.cache/foresay`."""
    return Path(os.environ.get("FORESAY_CACHE") or "~/.cache/foresay").expanduser()
