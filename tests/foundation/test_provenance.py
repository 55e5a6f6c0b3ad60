"""Where a number comes from, without where that lies on the machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foresay.foundation.provenance import provenance, without_paths

RESULTS = sorted((Path(__file__).parents[2] / "benchmarks/results").rglob("*.json"))


def test_absolute_paths_are_cut_to_their_last_parts(tmp_path: Path) -> None:
    told = {"base": str(tmp_path / "tuned"), "data": [str(tmp_path / "a.jsonl"), "b/c.jsonl"], "more": {"at": tmp_path}}
    said = provenance(**told, most=3, names=("/x/y", "z"))["settings"]
    assert said == {
        "base": "tuned",
        "data": ["a.jsonl", "b/c.jsonl"],
        "more": {"at": tmp_path.name},
        "most": 3,
        "names": ("y", "z"),
    }


def origins(told: Any) -> Iterator[Any]:
    """What stands under `provenance`, wherever."""
    if isinstance(told, dict):
        yield from (value for name, value in told.items() if name == "provenance")
    for value in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        yield from origins(value)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_no_result_says_where_its_base_or_data_lay(path: Path) -> None:
    for origin in origins(json.loads(path.read_text(encoding="utf-8"))):
        assert without_paths(origin) == origin
