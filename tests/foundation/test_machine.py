"""What the machine says of itself."""

from pathlib import Path

import pytest

from foresay.foundation import machine


def test_what_threads_waited_is_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for thread, said in (("11", "5 2000000000 7"), ("12", "5 500000000 7")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(said)
    monkeypatch.setattr(machine, "THREADS", tmp_path)
    assert machine.waited() == 2.5
    monkeypatch.setattr(machine, "THREADS", tmp_path / "none")
    assert machine.waited() == 0.0, "a system that does not count it"


def test_a_time_is_disturbed_where_threads_waited_for_more_than_a_little_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "waited", iter([7.0, 7.1, 7.1]).__next__)
    others = machine.OtherPrograms()
    assert not others.disturbed(2.1)
    assert others.disturbed(1.9)
