"""`foresay report` at the command line."""

import pytest

from tests.support.commands import BENCH, CHECKED, SHORT, At, Run


def test_a_report_is_made_of_what_the_verbs_wrote(at: At, run: Run) -> None:
    pytest.importorskip("matplotlib")
    folder = at.tmp / "run"
    assert run("check", at.adapter, *CHECKED, "--temperature", "0", "--out", folder / "check.json").status == 0
    assert (
        run("eval", at.adapter, "--per-domain", "1", "--masks", "3", *SHORT, "--out", folder / "eval.json").status == 0
    )
    (folder / "costs.json").write_text(run("calibrate", at.adapter, "--seconds", "1", "--json").out)
    (folder / "bench.json").write_text(run("bench", at.adapter, "--json", *BENCH, "--per-domain", "1").out)
    said = run("report", folder, "--out", at.tmp / "report.html", "--title", "Mine")
    assert (said.status, said.out) == (0, f"the report lies in {at.tmp / 'report.html'}\n")
    page = (at.tmp / "report.html").read_text()
    assert "<h1>Mine</h1>" in page
    assert "Lossless: 8 of 8 answers are identical to plain decoding; " in page
    assert page.count("<figure>") == 4
