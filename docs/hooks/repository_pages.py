"""A hook of MkDocs: pages that stand outside docs/ are pages of the site too, and links between them lead there.

README.md is the site's first page. What a page links to outside docs/ (benchmarks/README.md, a result file) comes along
under repository/. So each text stands once, with links that also work in the repository. A label that is only a file's
name becomes the title of the page that it leads to.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
HOME, ALSO = "README.md", ("CHANGELOG.md", "CONTRIBUTING.md")
LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^)#\s:]*)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", flags=re.M | re.S)


def site_path(path: str) -> str:
    """Where a file of the repository, known by its path from the top, stands in the site's sources."""
    if path == HOME:
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def repository_path(source: str) -> str:
    """The way back: the file of the repository that a page of the site is."""
    if source == "index.md":
        return HOME
    return source.removeprefix("repository/") if source.startswith("repository/") else f"docs/{source}"


def target_of(page: str, link: str) -> str:
    """The file that `link` on `page` leads to, both as paths from the top; of a folder, its README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) if link else page
    return f"{path}/README.md" if (ROOT / path).is_dir() else path


def linked(page: str) -> Iterator[str]:
    """Files that a page links to."""
    for text in prose((ROOT / page).read_text(encoding="utf-8")):
        for _, _, link, _ in LINK.findall(text):
            yield target_of(page, link)


def prose(markdown: str) -> list[str]:
    """The parts of a page that are not code."""
    return CODE.split(markdown)[::2]


def outside(pages: list[str]) -> set[str]:
    """Files outside docs/ that these pages lead to, over any number of links, and what the site's menu names."""
    found, todo = {HOME, *ALSO}, [HOME, *ALSO, *pages]
    while todo:
        for path in linked(todo.pop()):
            if path not in found and not path.startswith("docs/") and (ROOT / path).is_file():
                found.add(path)
                todo += [path] if path.endswith(".md") else []
    return found


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside."""
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages() if file.abs_src_path]
    pages = [page for page in pages if (ROOT / page).is_file()]
    for path in sorted(outside(pages)):
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def title(path: str) -> str:
    """The first heading of a page."""
    heading = re.search(r"^# (.*)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.M)
    return heading[1] if heading else path


def rewriter(page: str) -> Callable[[re.Match[str]], str]:
    """What puts the site's own links in place of the repository's."""
    here = posixpath.dirname(site_path(page)) or "."

    def rewrite(match: re.Match[str]) -> str:
        image, label, link, anchor = match.groups()
        path = target_of(page, link)
        if not link or not (ROOT / path).is_file():
            return match[0]
        if label.endswith(".md") and path.endswith(".md"):
            label = title(path)
        return f"{image}[{label}]({posixpath.relpath(site_path(path), here)}{anchor or ''})"

    return rewrite


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Mend the links of a page."""
    path = repository_path(page.file.src_uri)
    if not (ROOT / path).is_file():
        return markdown
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(rewriter(path), part) for part in parts[::2]]
    return "".join(parts)
