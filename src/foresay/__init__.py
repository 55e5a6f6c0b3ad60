"""foresay: make a pretrained language model say several tokens at once, with the same output."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foresay.decoding.answers import Answer
    from foresay.decoding.config import DecodeConfig
    from foresay.foundation.errors import ForesayError
    from foresay.model import MultiTokenModel
    from foresay.models.config import MTPConfig
    from foresay.training.config import LossConfig, TrainConfig

__version__ = "0.1.0"
__all__ = ["Answer", "DecodeConfig", "ForesayError", "LossConfig", "MTPConfig", "MultiTokenModel", "TrainConfig"]
_PLACES = {
    "Answer": "decoding.answers",
    "DecodeConfig": "decoding.config",
    "ForesayError": "foundation.errors",
    "LossConfig": "training.config",
    "MTPConfig": "models.config",
    "MultiTokenModel": "model",
    "TrainConfig": "training.config",
}


def __getattr__(name: str) -> Any:
    """What the package exports, imported when it is asked for: torch and transformers take seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'foresay' has no attribute {name!r}")
    return getattr(import_module(f"foresay.{_PLACES[name]}"), name)
