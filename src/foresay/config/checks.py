"""What settings are checked with."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

from foresay.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_choices(settings: Any) -> None:
    """Raise `ConfigError` unless every field of a `Literal` type holds one of its values."""
    for name, kind in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), get_args(kind)
        if get_origin(kind) is Literal:
            require(value in choices, f"{name} is {value!r}; give one of {', '.join(choices)}")


def require_at_least(settings: Any, least: float, *names: str) -> None:
    """Raise `ConfigError` unless these fields are `least` or more."""
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{name} is {value}; give {least} or more")
