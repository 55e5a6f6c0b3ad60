"""Settings in a YAML file or a saved adapter: read as the flags they stand for, so that one parser judges all."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from foresay.cli.given import Given
from foresay.data.config import DataConfig
from foresay.foundation.errors import ConfigError
from foresay.models.config import HeadsConfig, LoadConfig, MTPConfig
from foresay.training.config import LossConfig, PretrainConfig, TrainConfig

KINDS: dict[str, tuple[type, ...]] = {
    "train": (MTPConfig, HeadsConfig, LossConfig, TrainConfig, DataConfig, LoadConfig),
    "pretrain": (HeadsConfig, PretrainConfig, DataConfig),
}
"""Verbs that take a file, and what it may set; no two classes of a verb share a name."""


def as_yaml(settings: Sequence[Any]) -> str:
    """All settings of these configs as a file that `--config` reads, in the order of the classes."""
    content = {name: value for config in settings for name, value in asdict(config).items()}
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}
    return yaml.safe_dump(listed, sort_keys=False, default_flow_style=None)


def with_config(arguments: list[str]) -> list[str]:
    """`arguments`, and the flags that the YAML file of `--config FILE` stands for; flags given beside it win.

    Raises ConfigError for a missing or broken file and for unknown keys.
    """
    arguments = [word for argument in arguments for word in _split_config(argument)]
    if "--config" not in arguments:
        return arguments
    place = arguments.index("--config")
    if arguments[0] not in KINDS or place + 1 == len(arguments):
        verbs = " and ".join(f"`foresay {verb}`" for verb in KINDS)
        raise ConfigError(f"--config goes with {verbs} and takes a YAML file")
    path = Path(arguments[place + 1])
    given = arguments[1:place] + arguments[place + 2 :]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"config {path} cannot be read ({why}); give a YAML file of settings") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} holds no settings; write one `name: value` a line")
    defaults = {entry.name: entry.default for kind in KINDS[arguments[0]] for entry in fields(kind)}
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = sorted(settings.keys() - defaults.keys())
    if unknown:
        raise ConfigError(f"config {path} has unknown key {unknown[0]!r}; known are {', '.join(sorted(defaults))}")
    over = Given.on(given)
    asked = {name: value for name, value in settings.items() if name not in over}
    return [
        *arguments,
        *(word for name, value in asked.items() for word in _flag(name, value, defaults[name])),
    ]


def with_adapter(arguments: list[str]) -> list[str]:
    """`arguments`, and the flags that the settings of the adapter of `--init-from ADAPTER` stand for; others win.

    Raises ArtefactError where there is no such adapter.
    """
    name = _value_of("init_from", arguments)
    if arguments[:1] != ["train"] or not name:
        return arguments
    from foresay.models.artefact.folder import read_settings  # noqa: PLC0415 (they import torch, and help needs none)
    from foresay.models.base.load import adapter_folder  # noqa: PLC0415

    held = read_settings(adapter_folder(name))
    if (_value_of("family", arguments) or held.family) != held.family:
        return arguments  # training says what does not fit
    over = Given.on(arguments)
    asked = [entry for entry in fields(held.mtp) if entry.name not in over]
    own = [word for entry in asked for word in _flag(entry.name, getattr(held.mtp, entry.name), entry.default)]
    return [*arguments, *own, *([] if "family" in over else ["--family", held.family])]


def _value_of(name: str, arguments: Sequence[str]) -> str:
    """The value of an option, as `--name value` or `--name=value`; empty where it is not given."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for word, value in pairwise(words):
        if word.startswith("--") and word[2:].replace("-", "_") == name:
            return value
    return ""


def _split_config(argument: str) -> list[str]:
    """`--config=FILE` as two words."""
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def _flag(name: str, value: Any, default: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, list | tuple) or isinstance(default, tuple):
        # An empty list is a bare flag.
        return [f"--{flag}", *map(str, value if isinstance(value, list | tuple) else [value])]
    if not isinstance(default, bool):
        return [f"--{flag}", str(value)]
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; give true or false")
    return [f"--{flag}" if value else f"--no-{flag}"]
