"""The laws that are to hold on a card: `pytest tests/gpu`, every outcome written as it comes."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from job import Deadline, Job, Record

ROOT = Path(__file__).parents[3]


class LawsBroken(Exception):
    """Some law does not hold here."""


class Outcomes:
    """Hears of every test, and lets none begin when the time is over."""

    def __init__(self, record: Record, deadline: Deadline) -> None:
        self.record, self.deadline = record, deadline

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        """Before a test."""
        if self.deadline.over:
            pytest.skip("the time was over")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A phase of a test has ended: its call, or a setup or teardown that did not pass."""
        if report.when == "call" or report.outcome != "passed":
            why = report.longrepr[2] if report.skipped else report.longreprtext[-2000:]
            self.record.add(test=report.nodeid, outcome=report.outcome, seconds=report.duration, why=why)


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """Run them. Raises LawsBroken."""
    if job.dry_run:
        os.environ["FORESAY_GPU_LAWS"] = "cpu"
    record.provenance["threads"] = "one CPU thread, as in all tests"
    arguments = [str(ROOT / "tests" / "gpu"), "--rootdir", str(ROOT), "-q", "-rs", "-p", "no:cacheprovider"]
    status = pytest.main(arguments, plugins=[Outcomes(record, deadline)])
    counts = Counter(row["outcome"] for row in record.results)
    record.say(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    for row in record.results:
        if row["outcome"] == "failed":
            record.say(f"{row['test']}: {row['why'].strip().splitlines()[-1][:200]}")
    if status != pytest.ExitCode.OK:
        raise LawsBroken(
            f"{counts['failed']} of {counts.total()} tests of tests/gpu fail (pytest ended with {status!r})"
        )
