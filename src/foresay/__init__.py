"""foresay: make a pretrained language model say several tokens at once, with the same output.

What stands here is the public API; docs/reference/api.md lists it. Everything is loaded when it is first asked for, so
that `import foresay` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foresay.foundation import moved

if TYPE_CHECKING:
    from foresay.data.config import DataConfig as DataConfig
    from foresay.decoding.answers import Answer as Answer
    from foresay.decoding.config import DecodeConfig as DecodeConfig
    from foresay.decoding.config import PenaltyConfig as PenaltyConfig
    from foresay.decoding.config import QueueConfig as QueueConfig
    from foresay.decoding.config import SampleConfig as SampleConfig
    from foresay.decoding.config import StructuredOutputs as StructuredOutputs
    from foresay.evaluation.acceptance import evaluate as evaluate
    from foresay.evaluation.config import AdviseConfig as AdviseConfig
    from foresay.evaluation.config import BenchConfig as BenchConfig
    from foresay.evaluation.config import CheckConfig as CheckConfig
    from foresay.evaluation.config import CodeConfig as CodeConfig
    from foresay.evaluation.config import EvalConfig as EvalConfig
    from foresay.evaluation.config import HarnessConfig as HarnessConfig
    from foresay.foundation.errors import ArtefactError as ArtefactError
    from foresay.foundation.errors import BaseNotFound as BaseNotFound
    from foresay.foundation.errors import BusyError as BusyError
    from foresay.foundation.errors import ConfigError as ConfigError
    from foresay.foundation.errors import DataError as DataError
    from foresay.foundation.errors import DivergedError as DivergedError
    from foresay.foundation.errors import ForesayError as ForesayError
    from foresay.foundation.errors import LossMaskError as LossMaskError
    from foresay.foundation.errors import MissingPackage as MissingPackage
    from foresay.foundation.errors import PromptError as PromptError
    from foresay.foundation.errors import UnsupportedBase as UnsupportedBase
    from foresay.model import MultiTokenModel as MultiTokenModel
    from foresay.models.config import HeadsConfig as HeadsConfig
    from foresay.models.config import LoadConfig as LoadConfig
    from foresay.models.config import MTPConfig as MTPConfig
    from foresay.serving.config import PluginConfig as PluginConfig
    from foresay.serving.config import ServeConfig as ServeConfig
    from foresay.serving.config import VllmServeConfig as VllmServeConfig
    from foresay.training.config import DistilConfig as DistilConfig
    from foresay.training.config import EngineConfig as EngineConfig
    from foresay.training.config import LossConfig as LossConfig
    from foresay.training.config import PretrainConfig as PretrainConfig
    from foresay.training.config import TrainConfig as TrainConfig
    from foresay.training.pretrain import pretrain as pretrain
    from foresay.training.recipe import PretrainRecipe as PretrainRecipe
    from foresay.training.recipe import Recipe as Recipe
    from foresay.training.train import train as train

__version__ = "0.2.0"
EXPORTED = {
    "foresay.model": ("MultiTokenModel",),
    "foresay.training.train": ("train",),
    "foresay.training.pretrain": ("pretrain",),
    "foresay.training.recipe": ("PretrainRecipe", "Recipe"),
    "foresay.models.config": ("HeadsConfig", "LoadConfig", "MTPConfig"),
    "foresay.data.config": ("DataConfig",),
    "foresay.decoding.answers": ("Answer",),
    "foresay.decoding.config": ("DecodeConfig", "PenaltyConfig", "QueueConfig", "SampleConfig", "StructuredOutputs"),
    "foresay.training.config": ("DistilConfig", "EngineConfig", "LossConfig", "PretrainConfig", "TrainConfig"),
    "foresay.serving.config": ("PluginConfig", "ServeConfig", "VllmServeConfig"),
    "foresay.evaluation.acceptance": ("evaluate",),
    "foresay.evaluation.config": (
        *("AdviseConfig", "BenchConfig", "CheckConfig", "CodeConfig", "EvalConfig", "HarnessConfig"),
    ),
    "foresay.foundation.errors": (
        *("ArtefactError", "BaseNotFound", "BusyError", "ConfigError", "DataError", "DivergedError", "ForesayError"),
        *("LossMaskError", "MissingPackage", "PromptError", "UnsupportedBase"),
    ),
}
"""Where each public name stands."""
_MODULES = {name: module for module, names in EXPORTED.items() for name in names}
__all__ = list(_MODULES)

moved.guide()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
