"""The documentation site builds with every warning an error, fetches nothing, and leads everywhere."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

import foresay

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
LOADING = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}
"""What a browser fetches by itself."""


class Page(HTMLParser):
    """What a page fetches, where it leads, and how often each tag occurs within its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.within = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.within |= tag == "article"
        self.tags += [tag] * self.within
        self.ids.add(found.get("id") or "")
        for name, value in attrs:
            if (tag, name) in LOADING and found.get("rel") not in ("canonical", "prev", "next"):
                self.fetched.append(value or "")
        if tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.within &= tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site is built with mkdocs: pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    # Not with --quiet: MkDocs then hears no warnings, and counts none.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    made = {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    return {file: page for file, page in made.items() if file.name not in ("report.html", "404.html")}


def test_it_fetches_nothing(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 40
    for file, page in pages.items():
        assert [url for url in page.fetched if re.match(r"(https?:)?//", url)] == [], file
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def inner(file: Path, page: Page) -> Iterator[tuple[Path, str]]:
    """Links to pages and files of the site: the file, and the anchor."""
    for link in page.links:
        if not re.match(r"\w+:|//", link):
            path, _, anchor = link.partition("#")
            target = (file.parent / unquote(path)).resolve() if path else file
            yield target / "index.html" if target.is_dir() else target, unquote(anchor)


def test_every_link_leads_somewhere(pages: dict[Path, Page]) -> None:
    for file, page in pages.items():
        for target, anchor in inner(file, page):
            assert target.is_file(), f"{file.name}: {target}"
            assert not anchor or target not in pages or anchor in pages[target].ids, f"{target}#{anchor}"


def test_every_public_name_has_its_docstring_there(site: Path) -> None:
    html = "".join(file.read_text(encoding="utf-8") for file in (site / "reference").glob("*.html"))
    for module, names in foresay.EXPORTED.items():
        assert [name for name in names if f'id="{module}.{name}"' not in html] == []


def test_what_people_look_for_is_found(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    texts = " ".join(entry["text"] for entry in index["docs"])
    for word in ("speculative", "bfloat16", "Qwen3-0.6B", "OpenAI", "LoRA", "prompt lookup"):
        assert word in texts


TEXTS = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "figures"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_reads_as_in_the_repository(path: Path, site: Path, pages: dict[Path, Page]) -> None:
    """Python-Markdown and GitHub differ in lists and tables; each page has as many of them in both."""
    name = "index.html" if path.name == "README.md" else f"{path.stem}.html"
    made = pages[site / path.relative_to(ROOT / "docs").parent / name]
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    opened = [token.tag for token in tokens if token.nesting == 1]
    expected = {tag: opened.count(tag) for tag in ("li", "table", "h2", "h3")}
    assert {tag: made.tags.count(tag) for tag in expected} == expected


def words(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg.read_text(encoding="utf-8"))


def test_figures_are_of_the_files_in_the_repository(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_figures.py"))
    drawn = {file.stem for file in FIGURES.glob("*.svg") if not file.stem.startswith("terminal-")}
    assert set(made["MAKERS"]) == set(made["SOURCES"]) == drawn
    made["main"](tmp_path)
    for name in drawn:
        assert words(FIGURES / f"{name}.svg") == words(tmp_path / f"{name}.svg"), "run `make docs`"
        assert len(words(FIGURES / f"{name}.svg")) > 10


def test_pictures_of_the_terminal_are_shown_and_show_what_works() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_terminal.py"))
    names = {f"terminal-{verb}-{columns}" for verb in made["VERBS"] for columns in made["WIDTHS"]}
    assert names == {file.stem for file in FIGURES.glob("terminal-*.svg")}
    guides = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "guides").glob("*.md"))
    for name in names:
        assert f"figures/{name}.svg" in guides
        assert "Traceback" not in (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
