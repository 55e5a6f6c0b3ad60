"""Every setting and its default, once. Command line, YAML, saved JSON and docs are derived from these classes."""

from foresay.config.checks import require, require_at_least, require_choices
from foresay.config.decoding import DecodeConfig, FixedLayout, LayoutName, PenaltyConfig, SampleConfig
from foresay.config.model import DType, Family, HeadsConfig, LoadConfig, MTPConfig, Pack, Quantize
from foresay.config.serving import PluginConfig, QueueConfig, ServeConfig
from foresay.config.training import (
    DataConfig,
    LossConfig,
    OptimizerName,
    Parallel,
    PretrainConfig,
    TrackerName,
    TrainConfig,
)

__all__ = [
    "DType",
    "DataConfig",
    "DecodeConfig",
    "Family",
    "FixedLayout",
    "HeadsConfig",
    "LayoutName",
    "LoadConfig",
    "LossConfig",
    "MTPConfig",
    "OptimizerName",
    "Pack",
    "Parallel",
    "PenaltyConfig",
    "PluginConfig",
    "PretrainConfig",
    "Quantize",
    "QueueConfig",
    "SampleConfig",
    "ServeConfig",
    "TrackerName",
    "TrainConfig",
    "require",
    "require_at_least",
    "require_choices",
]
