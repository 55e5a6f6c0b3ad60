"""What transformers says it will take away: `make test-newest` fails a test that uses it, by name.

transformers says so by `warnings` and, more often, in its log (there once in a process, so one test is blamed for all).
"""

import logging
import os
import re
import warnings
from collections.abc import Iterator

import pytest

ASKED = "FORESAY_DEPRECATIONS"
"""The environment variable that asks for it."""
SAID = re.compile(r"deprecat|will be removed|no longer be supported", flags=re.I)


OTHERS = {"is_gradient_checkpointing": "PEFT 0.21 asks every base for it"}
"""What others use of transformers, and who."""


class Heard(logging.Handler):
    """Lines of the log of transformers that announce a removal, within `with`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._log = logging.getLogger("transformers")
        self._level = self._log.level

    def __enter__(self) -> "Heard":
        self._log.setLevel(logging.WARNING)  # a command that ran before may have silenced it
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        if SAID.search(record.getMessage()):
            self.lines.append(record.getMessage())


def announced(seen: list[warnings.WarningMessage]) -> list[str]:
    """Warnings that announce a removal of transformers'."""
    kinds = (FutureWarning, DeprecationWarning)
    return [
        str(one.message)
        for one in seen
        if issubclass(one.category, kinds) and ("transformers" in one.filename or "transformers" in str(one.message))
    ]


@pytest.fixture(autouse=True)
def deprecations(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that used what transformers is going to remove, unless it says that it means to."""
    if not os.environ.get(ASKED) or request.node.get_closest_marker("uses_deprecated"):
        yield
        return
    with Heard() as heard, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        yield
    found = [line for line in (*heard.lines, *announced(seen)) if not any(name in line for name in OTHERS)]
    assert not found, "transformers is going to remove what this test used:\n" + "\n".join(found)
