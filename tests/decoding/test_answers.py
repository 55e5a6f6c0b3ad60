"""Settings that are given by name: what means nothing where it stands is refused."""

from typing import Any

import pytest

from foresay.decoding.answers import settings_of, with_changes
from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "linear", "nodes": 4}, "nodes was given and layout is linear, which has no tree of drafts"),
        ({"branches": 2, "nodes": 4}, "branches, nodes was given and layout is planned"),
        ({"layout": "quadratic", "prompt_lookup": True}, "only planned looks up"),
    ],
)
def test_settings_of_another_layout_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_changes(None, settings)
    with pytest.raises(ConfigError, match=message):
        settings_of(None, settings)


@pytest.mark.parametrize(
    "settings",
    [{"layout": "tree", "branches": 2, "nodes": 4}, {"layout": "linear", "prompt_lookup": False}, {"masks": 2}],
)
def test_settings_of_the_layout_are_taken(settings: dict[str, Any]) -> None:
    assert with_changes(None, settings) == DecodeConfig(**settings)
