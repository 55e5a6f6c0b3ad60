"""The public API: what `foresay` exports, how it is loaded, and what became of old names."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import foresay
from foresay.foundation import errors, moved

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "foresay"
ROOMS = ("data", "decoding", "evaluation", "models", "serving", "training")
CHANGELOG = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
SOURCES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}


def test_typed_names_are_the_exported_ones() -> None:
    """mypy and editors read the imports under TYPE_CHECKING, Python the table."""
    [block] = [node for node in SOURCES[PACKAGE / "__init__.py"].body if isinstance(node, ast.If)]
    typed = [(node.module, one.name) for node in block.body if isinstance(node, ast.ImportFrom) for one in node.names]
    assert sorted(typed) == sorted((module, name) for module, names in foresay.EXPORTED.items() for name in names)
    assert len(set(foresay.__all__)) == len(foresay.__all__) == len(typed)
    assert set(foresay.__all__) <= set(dir(foresay))


def test_every_setting_and_every_error_is_exported() -> None:
    settings = {
        name
        for room in ROOMS
        for name, kind in vars(import_module(f"foresay.{room}.config")).items()
        if dataclasses.is_dataclass(kind) and name.endswith("Config") and name != "LoopConfig"  # a base of two others
    }
    family = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    assert {name for name in foresay.__all__ if name.endswith("Config")} == settings
    assert family <= set(foresay.__all__)
    for name in foresay.__all__:
        assert inspect.getdoc(getattr(foresay, name)), name


def test_an_import_loads_nothing_heavy() -> None:
    said = "import sys, foresay; print(sorted({name.split('.')[0] for name in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout
    assert {"torch", "transformers", "numpy", "yaml"}.isdisjoint(ast.literal_eval(out))


@pytest.mark.parametrize("module", ["foresay", "foresay.training.train", "foresay.model"])
def test_other_names_fail_as_usual(module: str) -> None:
    with pytest.raises(ImportError, match=f"cannot import name 'nothing' from '{module}'"):
        exec(f"from {module} import nothing")
    assert not hasattr(import_module(module), "nothing")
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{module}.nothing'"):
        import_module(f"{module}.nothing")


@pytest.mark.parametrize("old", moved.MODULES)
def test_an_old_module_says_where_it_went(old: str) -> None:
    new = moved.MODULES[old]
    with pytest.raises(ModuleNotFoundError, match=f"^{old} is now {new}; import it from there"):
        import_module(old)
    import_module(new)
    name = old.removeprefix("foresay.")
    assert not (PACKAGE / name).exists()
    assert not (PACKAGE / f"{name}.py").exists()


@pytest.mark.parametrize(("module", "old"), [(module, old) for module, names in moved.NAMES.items() for old in names])
def test_an_old_name_says_what_it_is_called_now(module: str, old: str) -> None:
    new = moved.NAMES[module][old]
    with pytest.raises(ImportError, match=f"^{module}.{old} is now {module}.{new}; import it from there"):
        exec(f"from {module} import {old}")
    assert hasattr(import_module(module), new)
    assert old not in vars(import_module(module))


def test_the_changelog_lists_what_moved() -> None:
    modules = CHANGELOG[CHANGELOG.index("**Modules moved**") : CHANGELOG.index("**Names**")]
    assert dict(re.findall(r"`(foresay[\w.]*)` -> `(foresay[\w.]*)`", modules)) == moved.MODULES
    listed = CHANGELOG[CHANGELOG.index("**Names**") : CHANGELOG.index("**Attributes**")]
    by_module = re.findall(r"in `([\w.]+)`: ((?:`\w+` -> `\w+`,? ?)+)", listed)
    assert {module: dict(re.findall(r"`(\w+)` -> `(\w+)`", names)) for module, names in by_module} == moved.NAMES


def test_the_core_of_a_model_is_private() -> None:
    """Rooms above `models` use what `MultiTokenModel` offers."""
    touched = [
        f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for file, tree in SOURCES.items()
        if file.name != "model.py" and "models" not in file.relative_to(PACKAGE).parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("core", "_core")
    ]
    assert not touched


def test_types_are_shipped() -> None:
    """The wheel takes the whole package, and so the marker."""
    assert (PACKAGE / "py.typed").is_file()
    assert 'packages = ["src/foresay"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
