"""The architecture page and CONTRIBUTING with its map name what is there, all of it, on its floor."""

import re
from pathlib import Path

import pytest

from tests.docs.test_house import PACKAGE, ROOT, contract, rooms

NAMES = ("CONTRIBUTING.md", "docs/concepts/architecture.md")
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
MAP = re.search(r"## Map\n.*?(?=\n## )", PAGES["CONTRIBUTING.md"], flags=re.S)[0]
ARCHITECTURE = PAGES["docs/concepts/architecture.md"]
ARTEFACT = {"README.md", "foresay.json", "foresay.safetensors", "certificate.json"} | {
    f"lora/{name}" for name in ("adapter_config.json", "adapter_model.safetensors")
}
"""Files of a saved folder, which are not in the repository."""

PATH = re.compile(r"[\w.]+(?:/[\w.-]+)*(?:/|\.(?:py|md|toml|json|yaml|html))")


def named(page: str) -> list[tuple[str, str]]:
    """Paths in backticks, each with the folder that its table row begins with, if it is in one."""
    found = []
    for line in re.sub(r"```.*?```", "", page, flags=re.S).splitlines():
        row = re.match(r"\| `([^`]+/)` \|", line)
        paths = [word for word in re.findall(r"`([^`]+)`", line) if PATH.fullmatch(word)]
        found += [(path, row[1] if row else "") for path in paths]
    return found


def is_there(path: str, folder: str) -> bool:
    """Whether the page may name it: from the repository, the package or its row's folder, or a bare name of a room."""
    if not folder and "/" not in path and any(PACKAGE.rglob(path)):
        return True
    tops = (ROOT, PACKAGE, ROOT / folder, PACKAGE / folder)
    return any((top / path).is_dir() if path.endswith("/") else (top / path).is_file() for top in tops)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    paths = named(PAGES[page])
    assert len(paths) >= 5
    assert [path for path, folder in paths if path not in ARTEFACT and not is_there(path, folder)] == []


def test_every_room_is_in_the_map() -> None:
    expected = {f"src/foresay/{room}/" for room in rooms()} | {"src/foresay/model.py"}
    assert expected <= set(re.findall(r"^\| `([^`]+)` \|", MAP, flags=re.M))


def test_every_folder_of_code_is_on_the_architecture_page() -> None:
    folders = {f"{file.parent.relative_to(PACKAGE)}/" for file in PACKAGE.glob("*/**/__init__.py")}
    assert folders == set(re.findall(r"^\| `([\w/]+/)` \|", ARCHITECTURE, flags=re.M))


def test_floors_are_those_of_the_linter() -> None:
    floors: dict[str, list[str]] = {}
    for floor, room in re.findall(r"^\| (\d) \| `([\w.]+)/?` \|", ARCHITECTURE, flags=re.M):
        floors.setdefault(floor, []).append(Path(room).stem)
    assert {floor: sorted(names) for floor, names in floors.items()} == {
        floor: sorted(names) for floor, names in contract().items()
    }


def test_a_path_that_is_gone_is_found() -> None:
    """The check can fail."""
    assert named("see `decoding/gone.py`, `p(d)` and `keep: best`\n| `decoding/` | `session.py` |") == [
        ("decoding/gone.py", ""),
        ("decoding/", "decoding/"),
        ("session.py", "decoding/"),
    ]
    assert not is_there("decoding/gone.py", "")
    assert is_there("session.py", "decoding/")
    assert not is_there("session.py", "data/")
    assert not is_there("gone.py", "")
