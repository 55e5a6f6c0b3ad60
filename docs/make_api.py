"""Write docs/reference/api.md from the code: every public name, and what `MultiTokenModel` has."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import foresay

PAGE = Path(__file__).parent / "reference" / "api.md"
GROUPS = {
    "Models": ("foresay.model", "foresay.decoding.answers"),
    "Training": ("foresay.training.train", "foresay.training.pretrain", "foresay.training.recipe"),
    "Evaluation": ("foresay.evaluation.acceptance",),
    "Settings": tuple(module for module in foresay.EXPORTED if module.endswith(".config")),
    "Errors": ("foresay.foundation.errors",),
}
HEAD = """# API

Made by `make docs`; a test keeps it fresh. Everything here is imported from `foresay` itself, with types
(`from foresay import MultiTokenModel, train`), and loaded when it is first asked for. What is not here may change
without notice.
"""


def summary(found: Any) -> str:
    """The first paragraph of a docstring, in one line, ready for a table."""
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split()).replace("|", "\\|")


def table(module: str) -> list[str]:
    """The public names of a module."""
    rows = [f"| `{name}` | {summary(getattr(import_module(module), name))} |" for name in foresay.EXPORTED[module]]
    return [f"From `{module}`:", "\n".join(["| name | what it is |", "|---|---|", *rows])]


def members() -> str:
    """What a model has, in the order of the code: what is asked of it, then what it does."""
    kinds = [kind for kind in reversed(foresay.MultiTokenModel.__mro__) if kind.__module__.startswith("foresay")]
    found = {name: member for kind in kinds for name, member in vars(kind).items() if not name.startswith("_")}
    rows = []
    for name, member in found.items():
        if isinstance(member, property):
            rows.append(f"| `{name}` | {summary(member)} |")
        elif callable(member) or isinstance(member, classmethod):
            words = [word for word in inspect.signature(member.__get__(None, kinds[-1])).parameters if word != "self"]
            rows.append(f"| `{name}({', '.join(words)})` | {summary(member)} |")
    return "\n".join(["| of `MultiTokenModel` | what it is |", "|---|---|", *rows])


def page() -> str:
    """The whole page."""
    parts = [HEAD.rstrip()]
    for title, modules in GROUPS.items():
        parts += [f"## {title}", *(part for module in modules for part in table(module))]
        parts += [members()] if title == "Models" else []
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
