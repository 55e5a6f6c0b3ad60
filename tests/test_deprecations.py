"""`make test-newest` hears what transformers is going to remove, in both ways that it says so."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.support.deprecations import ASKED, Heard, announced

ROOT = Path(__file__).parents[1]


@pytest.mark.uses_deprecated  # the fixture hears it too
def test_the_log_is_heard() -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with Heard() as heard:
        log = logging.getLogger("transformers.some_file")
        log.warning("`torch_dtype` is deprecated! Use `dtype` instead!")
        log.warning("Loading weights")
    assert heard.lines == ["`torch_dtype` is deprecated! Use `dtype` instead!"]


def test_warnings_of_others_are_not_blamed() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.warn("this will go with transformers 6", FutureWarning, stacklevel=1)
        warnings.warn("numpy will take this away", FutureWarning, stacklevel=1)
        warnings.warn("transformers is slow here", UserWarning, stacklevel=1)
    assert announced(seen) == ["this will go with transformers 6"]


@pytest.mark.parametrize(("asked", "status"), [("", 0), ("1", 1)])
def test_a_test_that_uses_it_fails_where_that_is_asked_for(asked: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.support.deprecations import deprecations\n")
    (tmp_path / "test_it.py").write_text(
        "import logging\n\n\ndef test_it():\n"
        "    logging.getLogger('transformers.x').warning('`past_key_values` is deprecated')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    env = {"PATH": "", "PYTHONPATH": str(ROOT), ASKED: asked}
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert said.returncode == status, said.stdout + said.stderr
    assert ("`past_key_values` is deprecated" in said.stdout.partition("short test summary")[0]) == bool(status)
