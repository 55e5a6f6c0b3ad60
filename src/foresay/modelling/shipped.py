"""What comes with foresay: the embedded model, by its name."""

from pathlib import Path

NANO = "nano"
EMBEDDED = Path(__file__).parent.parent / "embedded"


def base_folder(name: str) -> str:
    """Where transformers finds the base called `name`."""
    return str(EMBEDDED / NANO / "base") if name == NANO else name
