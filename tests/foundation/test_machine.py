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
