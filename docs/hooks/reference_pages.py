"""A hook of MkDocs: the pages of the API reference, one for each group of `docs/make_api.py`, made of docstrings."""

import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import foresay

GROUPS = runpy.run_path(str(Path(__file__).parents[1] / "make_api.py"))["GROUPS"]


def page(group: str) -> str:
    """Every public name of a group, as mkdocstrings asks for it."""
    names = [f"::: {module}.{name}" for module in GROUPS[group] for name in foresay.EXPORTED[module]]
    return "\n\n".join([f"# {group}", "All of it is imported from `foresay`: `from foresay import ...`.", *names])


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for group in GROUPS:
        files.append(File.generated(config, f"reference/{group.lower()}.md", content=page(group)))
    return files
