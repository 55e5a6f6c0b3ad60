"""`foresay study` at the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foresay.cli.main import main
from foresay.evaluation.studies import gated_lora as gate
from foresay.evaluation.studies import grid
from foresay.evaluation.studies.study import Point

ROWS = [{"prompt": f"Say {number}.", "response": f"I say {number}, and {number} again."} for number in range(12)]
SMALL = "--steps 2 --sequences 2 --anchors 2 --warmup-steps 0 --heldout 2 --num-masks 2 --rank 2 --max-length 64"
SHORT = "--per-domain 1 --max-new-tokens 4 --seeds 0"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a study into `out`: status, stdout, stderr."""
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))

    def command(study: str, *more: str, base: str = "nano") -> tuple[int, str, str]:
        capsys.readouterr()
        given = ["--data", str(data), "--out", str(tmp_path / "out"), *SMALL.split(), *SHORT.split()]
        status = main(["study", study, base, *given, *more])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ladders"], "there is no study 'ladders'; known are ladder, rank, gate, guess, losses"),
        (["ladder", "--cells", "half"], "ladder has no cell 'half'; its cells are: bare; sampler; full"),
        (["ladder", "--seed", "0"], "--seed means nothing to a study; give --seeds"),
        (["ladder", "--seed", "3"], "--seed means nothing to a study; give --seeds"),
        (["ladder", "--eval-every", "3"], "--eval-every means nothing to a study; leave it out"),
        (["ladder", "--heldout", "0"], "heldout is 0; a study measures on held-out examples, so give 1 or more"),
        (["ladder", "--rank", "-1"], "rank is -1; give 0 or more"),
        (["ladder", "--tasks", "arc_challenge"], "tasks stand beside the study gate, not beside ladder"),
        (["gate", "--chunk-anchors", "2"], "leave --chunk-anchors at 0"),
    ],
)
def test_bad_use_is_one_sentence_and_leaves_nothing(
    arguments: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    status, out, err = run(*arguments)
    *chatter, line = err.strip().splitlines()
    assert all(other.startswith("base: ") for other in chatter)
    assert (status, out) == (2, "")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_study_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / grid.MARKER).write_text('{"study": "rank"}')
    status, out, err = run("gate")
    assert (status, out) == (2, "")
    assert "holds the study rank, and gate was asked for; give another folder" in err
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_an_interrupted_study_shows_what_it_has_and_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grid.run_cell

    def interrupted(study: Any, cell: Any, *more: Any) -> list[Point]:
        if cell.label == gate.STANDARD:
            raise KeyboardInterrupt
        return real(study, cell, *more)

    with monkeypatch.context() as patch:
        patch.setattr(grid, "run_cell", interrupted)
        status, out, err = run("gate")
    assert status == 130
    assert "PARTIAL: 1 of 2 cells are done; missing: standard (seed 0)" in out
    assert "gated: next-token loss constant to the bit; standard is not there yet." in out
    assert err.endswith(
        "foresay: interrupted; nothing half written was left behind; the same command goes on from what is kept\n"
    )
    status, out, err = run("gate", "--json")
    assert (status, "gated, seed" in err, "standard, seed 0" in err) == (0, False, True)
    said = json.loads(out)
    assert (said["asked"], said["missing"], said["verdict"]["holds"]) == (2, [], True)
    assert {"label", "seed", "points", "identity", "provenance"} <= said["results"][0].keys()
    assert said["results"][0]["identity"]["dtype"] == "float32"
    assert len(list((tmp_path / "out").iterdir())) == 3, "the marker and two cells"


def test_a_gate_that_leaks_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "acting", lambda pack, everywhere: 0 * pack.mask + 1.0)
    status, out, _ = run("gate", "--cells", gate.GATED)
    assert status == 1
    assert "gated: next-token loss changed" in out
