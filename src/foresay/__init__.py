"""foresay: make a pretrained language model say several tokens at once, with the same output."""

from foresay.config import DecodeConfig, LossConfig, MTPConfig, TrainConfig
from foresay.errors import ForesayError
from foresay.model import MultiTokenModel

__version__ = "0.1.0"
__all__ = ["DecodeConfig", "ForesayError", "LossConfig", "MTPConfig", "MultiTokenModel", "TrainConfig"]
