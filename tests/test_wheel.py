"""What `pip install foresay` brings, and whether one version and one set of names stand everywhere."""

import email
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import foresay

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "foresay"
MEGABYTES = 25
"""Most that a wheel may weigh; `nano` and the two adapters are 21 of them."""
NEEDED = (
    "py.typed",
    "custom_generate.py",
    "data/embedded_prompts/five_domains/math.jsonl",
    "evaluation/report/page.html.j2",
    "models/base/nano/base/model.safetensors",
    "models/base/nano/adapter/foresay.safetensors",
    "models/base/smollm2/adapter/foresay.json",
    "models/base/smollm2/adapter/lora/adapter_model.safetensors",
    "serving/openai/page.html",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install -e '.[test]'")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return opened.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Any:
    with zipfile.ZipFile(wheel) as opened:
        return email.message_from_bytes(opened.read(f"foresay-{foresay.__version__}.dist-info/METADATA"))


def test_it_holds_the_whole_package_and_nothing_else(names: list[str]) -> None:
    kept = {str(file.relative_to(PACKAGE.parent)) for file in PACKAGE.rglob("*") if file.is_file()}
    expected = {name for name in kept if "__pycache__" not in name}
    assert {name for name in names if name.startswith("foresay/")} == expected
    assert {f"foresay/{name}" for name in NEEDED} <= expected
    assert {name.split("/")[0] for name in names} == {"foresay", f"foresay-{foresay.__version__}.dist-info"}
    assert not [name for name in names if re.search(r"(^|/)(tests?|test_\w+\.py|conftest\.py|benchmarks)(/|$)", name)]


def test_it_is_not_heavier_than_it_must_be(wheel: Path) -> None:
    assert wheel.stat().st_size < MEGABYTES * 2**20


def test_it_says_what_it_needs(metadata: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (metadata["Name"], metadata["Version"]) == ("foresay", foresay.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    needed = [line for line in map(Requirement, metadata.get_all("Requires-Dist")) if "extra" not in str(line.marker)]
    assert set(needed) == set(map(Requirement, project["dependencies"]))
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert all(" :: " in line for line in metadata.get_all("Classifier"))
    assert all("https://" in line for line in metadata.get_all("Project-URL"))
    assert metadata.get_payload().startswith("# foresay")


def test_it_brings_the_command_and_the_plugin_of_vllm(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        said = opened.read(f"foresay-{foresay.__version__}.dist-info/entry_points.txt").decode()
    assert "[console_scripts]\nforesay = foresay.cli.main:entry" in said
    assert "[vllm.general_plugins]\nforesay = foresay.serving.vllm.plugin:register" in said


def test_no_json_in_it_names_a_path_of_a_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        for name in opened.namelist():
            if name.endswith(".json"):
                text = opened.read(name).decode()
                json.loads(text)
                assert not re.search(r'"/(home|work|tmp|root|Users)/', text), name


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == foresay.__version__
    papers = [paper["identifiers"][0]["value"] for paper in cited["references"]]
    assert papers == ["arXiv:2507.11851", "arXiv:2404.19737"]
    released = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    assert released[0] == foresay.__version__
