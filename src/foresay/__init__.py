"""foresay: make a pretrained language model say several tokens at once, with the same output."""

from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import ForesayError
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from foresay.training.config import LossConfig, TrainConfig

__version__ = "0.1.0"
__all__ = ["DecodeConfig", "ForesayError", "LossConfig", "MTPConfig", "MultiTokenModel", "TrainConfig"]
