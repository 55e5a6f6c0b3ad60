"""The documents say what the code does."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import tyro

from foresay.cli import main as cli
from foresay.cli.commands import VERBS

ROOT = Path(__file__).parents[2]
DOCS = sorted(path for top in ("docs", "benchmarks", "recipes") for path in (ROOT / top).rglob("*.md"))
DOCS = [*sorted(ROOT.glob("*.md")), *DOCS]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
RESULTS = ROOT / "benchmarks" / "results"


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_cli_page_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    made = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))["page"]()
    assert (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8") == made, "run `make docs`"


def test_api_page_is_fresh() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8") == made, "run `make docs`"


@pytest.mark.parametrize("page", DOCS, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text(encoding="utf-8")):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


def test_every_result_file_has_its_command() -> None:
    """`benchmarks/README.md` has a table for each folder of results; each folder is a page of `docs/experiments/`."""
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    tables = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", page, flags=re.M | re.S))
    assert set(tables) == {folder.name for folder in RESULTS.iterdir()}
    for topic, table in tables.items():
        kept = {file.name for file in (RESULTS / topic).glob("*.json")}
        assert kept == set(re.findall(r"([\w-]+\.json)`", "".join(re.findall(r"^\| (.*?) \|", table, flags=re.M))))
        assert (ROOT / "docs" / "experiments" / f"{topic}.md").is_file()


def test_the_index_of_the_experiments_names_every_page() -> None:
    index = (ROOT / "docs" / "experiments" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs" / "experiments").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"^\| \[(\w+\.md)\]", index, flags=re.M))


@pytest.mark.parametrize("page", DOCS, ids=title)
def test_commands_named_in_the_docs_exist(page: Path) -> None:
    fenced = re.findall(r"```(?:bash|text)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    verbs = re.findall(r"^(?:\$ )?foresay (\w+)", "\n".join(fenced), flags=re.M)
    assert set(verbs) <= set(VERBS)


@pytest.mark.parametrize("page", [ROOT / "docs" / "start.md", *GUIDES], ids=title)
def test_commands_of_the_guides_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cannot all be run here, so at least every option is one."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    for line in re.findall(r"^foresay .*$", "\n".join(blocks), flags=re.M):
        command = shlex.split(line.partition(" > ")[0], comments=True)[1:]
        tyro.cli(cli.command_for(command[0]), args=cli.with_config(command))


def test_a_command_that_is_none_is_not_understood() -> None:
    """The check can fail."""
    with pytest.raises(SystemExit):
        tyro.cli(cli.command_for("train"), args=cli.with_config(["train", "base", "--no-such-option"]))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "experiments").glob("*.md")), ids=lambda page: page.name)
def test_equal_answers_are_counted_without_the_baselines_own(page: Path) -> None:
    """What "N of N answers equal transformers'" counts is what foresay said, in the bench file named last."""
    benches = {path.name: path for path in RESULTS.glob("*/*.json") if '"decoder"' in path.read_text()}
    named = ""
    for found in re.finditer(r"`([\w.-]+\.json)`|([\d,]+) of [\d,]+ (?:answers|outputs)[^.]* equal", page.read_text()):
        if found[1]:
            named = found[1] if found[1] in benches else named
        elif named:
            results = json.loads(benches[named].read_text())["results"]
            ours = [result["identical"] for result in results if "transformers" not in result["decoder"]]
            assert sum(ours) == int(found[2].replace(",", "")), (found[0], named)


def test_result_files_of_any_age_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    table = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["main"]
    kept = {file: file.read_text() for file in RESULTS.rglob("*.json")}
    files = [file for file, text in kept.items() if '"decoder"' in text and "results" in json.loads(text)]
    for file in files:
        table(file)
        assert "| plain | 1.00 |" in capsys.readouterr().out
    assert files


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def test_readme_commands_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every `foresay` line of the README, but `demo` (trained in its own test) and what names a reader's own files."""
    monkeypatch.chdir(tmp_path)
    lines = [line for block in readme_blocks("bash") for line in block.splitlines() if line.startswith("foresay ")]
    # smollm2 takes half a minute to convert, and its steps ten times as long.
    commands = [shlex.split(line.replace("smollm2", "nano"), comments=True)[1:] for line in lines]
    assert len(commands) >= 4
    for command in commands:
        if command[0] == "demo" or any(word.startswith("your-") for word in command):
            continue
        shortened = {
            "generate": ["--max-new-tokens", "24"],
            "check": ["--per-domain", "1", "--max-new-tokens", "8", "--shift", "0.5", "--layouts", "quadratic"],
            "bench": ["--per-domain", "1", "--repeats", "1", "--max-new-tokens", "8", "--layouts", "quadratic"],
        }
        assert cli.main([*command, *shortened.get(command[0], [])]) == 0, command
        assert capsys.readouterr().out


def test_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = readme_blocks("python")
    exec(compile(example.replace("smollm2", "nano"), "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_example_of_transformers_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "guides" / "transformers.md").read_text(encoding="utf-8")
    example = "".join(re.findall(r"```python\n(.*?)```", page, flags=re.S))
    exec(compile(example.replace("smollm2", "nano"), "transformers.md", "exec"), {})
    *shown, piped = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert piped.startswith(shown[0]), "a pipeline goes on where a stop string ended the others"
    assert shown[0] == shown[1]
    assert shown[0].startswith("Once upon a time")
    assert shown[0].endswith(".")


def test_demo_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "adapter"
    assert cli.main(["demo", "--train", "--seconds", "0.5", "--out", str(out), "--max-new-tokens", "8"]) == 0
    shown = capsys.readouterr().out
    assert "36 of 36 answers are identical to transformers' own" in shown
    assert (out / "foresay.json").is_file()
