"""The stages for a GPU run through on a CPU, with toys; and whatever becomes of one, the others run and it is told."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from time import sleep
from types import ModuleType
from typing import Any

import pytest

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu"
STAGES = {"laws", "steps", "adapter", "seconds", "memory", "serve"}


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a dry run of all stages."""
    out = tmp_path_factory.mktemp("gpu") / "results"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FORESAY_CACHE": str(out.with_name("cache"))}
    if not os.environ.get("FORESAY_SLOW_TESTS"):
        environment["TORCH_COMPILE_DISABLE"] = "1"  # what transformers compiles then runs as it is: C++ takes a minute
    command = [sys.executable, str(GPU / "run.py"), "--dry-run", "--out", str(out), "--commit", "this one"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(out / 'run.log').read_text()[-4000:]}"
    return out


def results(out: Path, stage: str) -> list[dict[str, Any]]:
    """What a stage found, and that it says where that comes from."""
    content = json.loads((out / f"{stage}.json").read_text())
    assert (content["stage"], content["status"]) == (stage, "done")
    assert content["summary"]
    assert content["provenance"]["commit"] == "this one"
    assert content["provenance"]["settings"]["dry_run"] is True
    assert {"versions", "machine", "card"} <= content["provenance"].keys()
    rows: list[dict[str, Any]] = content["results"]
    assert rows
    return rows


def test_eight_files_come_back_and_the_adapter_among_them(dry: Path) -> None:
    assert {path.name for path in dry.iterdir()} == {f"{stage}.json" for stage in STAGES} | {"run.log", "adapter.tar"}
    with tarfile.open(dry / "adapter.tar") as packed:
        assert {"adapter/foresay.json", "adapter/foresay.safetensors"} <= set(packed.getnames())


def test_laws(dry: Path) -> None:
    rows = results(dry, "laws")
    assert {row["outcome"] for row in rows} <= {"passed", "skipped"}
    assert sum(row["outcome"] == "passed" for row in rows) > 15


def test_steps(dry: Path) -> None:
    rows = results(dry, "steps")
    steps = [row for row in rows if row["what"] == "step"]
    assert {row["entry"] for row in steps} >= {"plain", "linear 8", "quadratic 4", "quadratic 8", "tree 4"}
    assert all(row["milliseconds"]["least"] <= row["milliseconds"]["median"] for row in steps)
    assert all(
        row["times_least"] == row["milliseconds"]["median"] / max(row["bytes_ms"], row["products_ms"]) for row in steps
    )
    profiled = [row for row in rows if row["what"].startswith("profile")]
    assert profiled
    assert all(len(row["kernels"]) == 12 for row in profiled)


def test_adapter(dry: Path) -> None:
    greedy, sampled, training, *rates = results(dry, "adapter")
    assert (greedy["temperature"], sampled["temperature"]) == (0.0, 0.7)
    assert greedy["rows"] == sampled["rows"] > 0
    assert training["steps"] == len(training["losses"]) > 0
    assert {row["layout"] for row in rates} == {"quadratic", "linear"}
    assert all(rate >= 1 for row in rates for rate in row["tokens_per_step"].values())


def test_seconds(dry: Path) -> None:
    rows = results(dry, "seconds")
    ways = {row["way"] for row in rows}
    assert {"plain", "planned", "tree", "transformers", "transformers static", "transformers compiled"} <= ways
    assert {row["batch"] for row in rows if row["way"] == "prompt lookup"} == {1}
    # In float32 all of them say the same.
    assert all(row["identical_to_transformers"] == row["answers"] for row in rows)


def test_memory(dry: Path) -> None:
    rows = results(dry, "memory")
    assert {row["form"] for row in rows} == {"two passes", "packed", "packed, recomputed"}
    assert {row["base"] for row in rows} == {"8B", "1B"}


def test_serve(dry: Path) -> None:
    rows = results(dry, "serve")
    assert {(row["layout"], row["clients"]) for row in rows} == {
        (way, n) for way in ("planned", "plain") for n in (1, 2)
    }
    assert all(row["tokens_per_second"] > 0 for row in rows)


# What becomes of a stage.


@pytest.fixture
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules."""
    sys.path.insert(0, str(GPU))
    try:
        import job  # noqa: PLC0415
        import parts  # noqa: PLC0415
        import run  # noqa: PLC0415

        yield {"job": job, "parts": parts, "run": run}
    finally:
        sys.path.remove(str(GPU))


def ended(modules: dict[str, ModuleType], folder: Path, script: str, begun: str = "") -> dict[str, Any]:
    """The result file of a stage whose process is this script, given no time once the file `begun` is there."""
    run, job = modules["run"], modules["job"].Job(str(folder), str(folder), {})
    with (folder / "log").open("wb") as log:
        process = run.Process.of([sys.executable, "-c", script, str(folder)], ("steps",), 0 if begun else 600, log)
        while begun and not (folder / begun).exists():
            assert process.running.poll() is None, (folder / "log").read_text()
            sleep(0.05)
        process.go()
        run.settled(job, "steps", process.wait())
    content: dict[str, Any] = json.loads((folder / "steps.json").read_text())
    return content


WRITES = """
import json, os, subprocess, sys, time
record = {"stage": "steps", "status": "running", "results": [{"a": 1}], "left_out": [], "summary": [], "provenance": {}}
open(sys.argv[1] + "/steps.json", "w").write(json.dumps(record))
left = subprocess.Popen(["sleep", "600"])
open(sys.argv[1] + "/writing", "w").write(str(left.pid))
os.rename(sys.argv[1] + "/writing", sys.argv[1] + "/child")
time.sleep(600)
"""


def test_a_stage_that_is_cut_keeps_what_it_wrote(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    found = ended(modules, tmp_path, WRITES, begun="child")
    assert found["status"] == "cut at its cap of 0 s"
    assert found["results"] == [{"a": 1}]
    left = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    # A killed process is gone when the kernel gets to it.
    for _ in range(200):
        if not left.exists() or left.read_text().split()[2] in "ZX":
            break
        sleep(0.05)
    else:
        pytest.fail("what it started goes on")


def test_a_stage_that_dies_is_told(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    found = ended(modules, tmp_path, "import sys; sys.exit(3)")
    assert (found["status"], found["results"]) == ("ended with status 3", [])


def test_a_stage_that_fails_stops_no_other(tmp_path: Path) -> None:
    """Without CUDA every stage fails or has nothing to do, and each says so."""
    code = """
import sys, json
sys.path.insert(0, sys.argv[1])
import stage, job, types
broken, sound, idle = (types.ModuleType(f"stages.{name}") for name in ("broken", "sound", "idle"))
def breaks(*_): raise ValueError("no such thing")
def skips(*_): raise job.Skipped("nothing to run on")
broken.run, sound.run, idle.run = breaks, lambda _, record, deadline: record.add(left=deadline.left), skips
sys.modules |= {"stages.broken": broken, "stages.sound": sound, "stages.idle": idle}
sys.modules["bases"] = types.SimpleNamespace(provenance=lambda *_: {})
told = job.Job(sys.argv[2], sys.argv[2], {"sound": 9.0})
for name in ("broken", "sound", "idle"):
    stage.run(told, name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(GPU), str(tmp_path)], capture_output=True, text=True, check=True
    )
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("broken", "sound", "idle")}
    assert found["broken"]["status"] == "failed: ValueError: no such thing"
    assert "Traceback" in done.stderr
    assert found["sound"]["status"] == "done"
    assert 4 < found["sound"]["results"][0]["left"] <= 5, "the cap less a reserve"
    assert found["idle"]["status"] == "skipped: nothing to run on"


def test_an_adapter_that_is_too_large_stays(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = modules["run"], modules["job"].Job(str(tmp_path), str(tmp_path), {})
    assert run.pack(job) == ""
    job.trained.mkdir()
    (job.trained / "foresay.json").write_bytes(b"x" * 50_000)
    monkeypatch.setattr(run, "MOST_BYTES", 40_000)
    assert "stays in" in run.pack(job)
    monkeypatch.setattr(run, "MOST_BYTES", 80_000)
    assert "lies in" in run.pack(job)


@pytest.mark.parametrize(
    "given", [["--cap", "steps=fast"], ["--cap", "lunch=3"], ["--prompts", "nowhere"], ["--stages", "x"]]
)
def test_bad_use_is_status_2(
    modules: dict[str, ModuleType], given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        modules["run"].parsed(["--out", "somewhere", *given])
    assert error.value.code == 2
    assert given[1] in capsys.readouterr().err


# A large file in parts.


def parts(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GPU / "parts.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A file of 2.3 MB that is split in megabytes."""
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(2_300_000))
    done = parts("split", path, "--out", tmp_path / "parts", "--megabytes", 1)
    assert done.returncode == 0
    return path


def test_parts_make_the_whole_again(whole: Path, tmp_path: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "parts").iterdir() if path.suffix != ".json"}
    assert sizes == {"model.gguf.000": 1_000_000, "model.gguf.001": 1_000_000, "model.gguf.002": 300_000}
    assert parts("check", tmp_path / "parts").returncode == 0
    assert parts("join", tmp_path / "parts", "--out", tmp_path / "again").returncode == 0
    assert (tmp_path / "again").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("verb", ["check", "join"])
def test_a_part_that_is_missing_or_differs_is_named(whole: Path, tmp_path: Path, verb: str) -> None:
    second, last = (tmp_path / "parts" / f"model.gguf.00{number}" for number in (1, 2))
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    last.unlink()
    out = ["--out", tmp_path / "again"] if verb == "join" else []
    done = parts(verb, tmp_path / "parts", *out)
    assert done.returncode == 1
    assert "model.gguf.001 differs" in done.stderr
    assert "model.gguf.002 is missing" in done.stderr
    assert not list(tmp_path.glob("*again*"))


def test_parts_of_another_file_make_nothing(whole: Path, tmp_path: Path, modules: dict[str, ModuleType]) -> None:
    manifest = tmp_path / "parts" / "model.gguf.parts.json"
    manifest.write_text(manifest.read_text().replace(modules["parts"].Piece.of(whole).sha256, "0" * 64))
    done = parts("join", tmp_path / "parts", "--out", tmp_path / "again")
    assert (done.returncode, (tmp_path / "again").exists()) == (1, False)
    assert not list(tmp_path.glob(".again*"))


@pytest.mark.parametrize(
    "given", [["split", "nothing", "--out", "x"], ["check", "nowhere"], ["join", "nowhere", "--out", "x"]]
)
def test_what_is_not_there_is_one_sentence(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = parts(*given)
    assert done.returncode == 1
    assert done.stderr.startswith("parts: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_blocks_end_where_they_should(modules: dict[str, ModuleType]) -> None:
    file = BytesIO(b"abcdefg")
    assert [b"".join(modules["parts"]._blocks(file, most)) for most in (3, 0, 2, 9)] == [b"abc", b"", b"de", b"fg"]
