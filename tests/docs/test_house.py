"""How large the code is, and how it is layered: limits that keep it readable. As a script it prints where they stand.

Lines of a function are counted from `def` to its last line, docstring and nested functions included, decorators not; a
nested function counts on its own too. Percentiles are nearest-rank. Lines of a file are all of them.
"""

import ast
import graphlib
import math
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "foresay"
CODE = ("src", "benchmarks", "recipes", "docs")

ROOMS, FLOORS = 9, 8
MEDIAN, P99, LONGEST = 8, 32, 45
FILE, TEST_FILE = 300, 400
"""Lines of a file of code, and of tests, which are lists of cases."""

LONGER = {
    "tests/laws/test_inside.py": "the laws of one door in one place",
    "tests/laws/test_mutants.py": "a mutant for each law",
}
"""Test files that are longer, and why. Entries that are no longer needed should go: the script names them."""


def contract() -> dict[str, list[str]]:
    """The rooms of the linter's contract by floor, from the bottom, as `{"1": ["foundation"], ...}`."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [contract["layers"] for contract in told["contracts"] if contract["type"] == "layers"]
    return {str(floor): layer.split(" | ") for floor, layer in enumerate(reversed(layers), 1)}


def rooms() -> list[str]:
    """The folders of the package that hold code."""
    return sorted({file.relative_to(PACKAGE).parts[0] for file in PACKAGE.glob("*/**/*.py")})


def functions() -> list[tuple[int, str]]:
    """Lines and place of every function and method of the package, the longest first."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found.append((lines, f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"))
    return sorted(found, reverse=True)


def files(*tops: str) -> list[tuple[int, str]]:
    """Lines and path of every Python file in these folders of the repository, the longest first."""
    found = [file for top in tops for file in (ROOT / top).rglob("*.py")]
    lengths = [(len(file.read_text(encoding="utf-8").splitlines()), str(file.relative_to(ROOT))) for file in found]
    return sorted(lengths, reverse=True)


def percentile(lengths: list[int], share: float) -> int:
    return sorted(lengths)[math.ceil(share * len(lengths)) - 1]


def facts() -> Iterator[tuple[str, float, int, list[str]]]:
    """What is limited: name, value, limit, and the largest offenders."""
    measured = functions()
    lengths = [lines for lines, _ in measured]
    long = [f"{lines} {place}" for lines, place in measured[:10]]
    tests = [(lines, path) for lines, path in files("tests") if path not in LONGER]
    yield "folders of src/foresay", len(rooms()), ROOMS, rooms()
    yield "floors", len(contract()), FLOORS, list(contract())
    yield "lines of a function, median", statistics.median(lengths), MEDIAN, long
    yield "lines of a function, 99th percentile", percentile(lengths, 0.99), P99, long
    yield "lines of a function, longest", lengths[0], LONGEST, long
    for what, found, limit in (("a file", files(*CODE), FILE), ("a file of tests", tests, TEST_FILE)):
        yield f"lines of {what}, longest", found[0][0], limit, [f"{lines} {path}" for lines, path in found[:10]]


def test_the_code_stays_within_its_limits() -> None:
    past = [
        f"{name}: {value:g}, at most {limit}. The largest:\n" + "\n".join(largest)
        for name, value, limit, largest in facts()
        if value > limit
    ]
    assert not past, "\n".join(past)


def test_every_room_has_a_floor() -> None:
    assert sorted(room for floor in contract().values() for room in floor) == sorted([*rooms(), "model"])


def test_no_circle_among_modules() -> None:
    """The linter knows rooms; this asks about every module in them."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("foresay")
    graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    ).prepare()


def main() -> None:
    for name, value, limit, _ in facts():
        print(f"{name}: {value:g} (at most {limit})")
    lengths = {path: lines for lines, path in files("tests")}
    print("longer files of tests:", *(f"\n  {lengths.get(path, 0)} {path}: {why}" for path, why in LONGER.items()))
    print("no longer needed:", [path for path in LONGER if lengths.get(path, 0) <= TEST_FILE])


if __name__ == "__main__":
    main()
