"""Programs that a model wrote: what passes, what fails, and what is cut or refused."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from foresay.evaluation.code import sandbox
from foresay.evaluation.code.sandbox import Limits, Outcome, network_namespace, run_program, run_programs
from foresay.foundation.errors import ConfigError

LIMITS = Limits(cpu_seconds=1, memory_bytes=128 * 2**20)
ADD = "def add(a, b):\n    return a {} b\n\nassert add(2, 3) == 5\n"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def connect_to(server: socket.socket) -> str:
    return f"import socket\nsocket.create_connection({server.getsockname()!r}, timeout=1)"


def heard(server: socket.socket) -> bool:
    try:
        server.accept()
    except BlockingIOError:
        return False
    return True


def test_a_right_program_passes_and_a_wrong_one_fails() -> None:
    assert run_program(ADD.format("+"), LIMITS) == Outcome("passed")
    assert run_program(ADD.format("-"), LIMITS) == Outcome("failed", "AssertionError")


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("def add(a, b:", "SyntaxError"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("import os\nos._exit(0)\n", "ended with status 0"),
        ("import os\nos.write(1, b'passed')\nos.close(1)\nos._exit(0)\n", "ended with status 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import torch", "ModuleNotFoundError"),
        ("from foresay import train", "ModuleNotFoundError"),
        ("import sandbox", "ModuleNotFoundError"),
        ("input()", "EOFError"),
    ],
)
def test_what_ends_before_its_tests_has_failed(program: str, detail: str) -> None:
    assert run_program(program, LIMITS) == Outcome("failed", detail)


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "while True: print('x' * 1000)",
    ],
)
def test_an_endless_loop_is_cut(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(sandbox, "PATIENCE", 600)  # on a busy machine a second of CPU time takes many
    assert run_program(program, LIMITS) == Outcome("time", "CPU time")


def test_a_program_that_waits_is_cut_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PATIENCE", 0.5)
    assert run_program("import time\ntime.sleep(600)", LIMITS) == Outcome("time", "wall clock")


@pytest.mark.parametrize(
    "program", ["x = [0] * 10**9", "x = []\nwhile True: x.append(bytearray(2**20))", "print('x' * 2**30)"]
)
def test_a_program_that_wants_much_memory_is_cut(program: str) -> None:
    assert run_program(program, LIMITS) == Outcome("memory")


@pytest.mark.parametrize("namespace", [True, False])
def test_a_socket_is_refused(listening: socket.socket, monkeypatch: pytest.MonkeyPatch, namespace: bool) -> None:
    if not namespace:
        monkeypatch.setattr(sandbox, "network_namespace", tuple)
    assert run_program(connect_to(listening), LIMITS) == Outcome("failed", "PermissionError")
    caught = f"try:\n    {connect_to(listening).replace(chr(10), '; ')}\nexcept OSError: pass"
    assert run_program(caught, LIMITS) == Outcome("passed")
    assert not heard(listening)


def test_the_namespace_alone_keeps_from_the_network(listening: socket.socket) -> None:
    command = [sys.executable, "-c", connect_to(listening)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert heard(listening), "without it, the server is in reach"
    if not network_namespace():
        pytest.skip("users may make no network namespace here")
    assert subprocess.run([*network_namespace(), *command], check=False, capture_output=True).returncode == 1
    assert not heard(listening)


@pytest.mark.parametrize(
    "attempt",
    [
        "open({!r}, 'w')",
        "open({!r}, 'a').write('more')",
        "import os\nos.open({!r}, os.O_RDWR)",
        "import os\nos.remove({!r})",
        "import os\nos.rename({!r}, 'here')",
        "import shutil\nshutil.copy({!r}, 'here')",
        "import pathlib\npathlib.Path({!r}).write_text('other')",
        "import subprocess\nsubprocess.run(['touch', {!r}])",
        "import os\nos.system('rm ' + {!r})",
        "import os\nos.fork()  # {!r}",
        "import ctypes  # {!r}",
    ],
)
def test_files_and_other_processes_are_refused(tmp_path: Path, attempt: str) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("mine")
    outcome = run_program(attempt.format(str(file)), LIMITS)
    assert outcome == Outcome("failed", "PermissionError")
    assert file.read_text() == "mine"


def test_a_program_knows_nothing_of_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")
    program = (
        "import os, sys\nassert 'SECRET' not in os.environ\nassert os.listdir() == []\nassert __name__ == 'program'"
    )
    assert run_program(program, LIMITS) == Outcome("passed")


def test_what_it_prints_is_thrown_away() -> None:
    assert (
        run_program("import sys\nfor _ in range(200): sys.stdout.write('passed' * 10_000)", LIMITS).verdict == "passed"
    )
    assert run_program("print('passed')\nassert False", LIMITS) == Outcome("failed", "AssertionError")


def test_equal_programs_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(sandbox, "run_program", lambda program, limits: ran.append(program) or Outcome("passed"))
    assert run_programs(["a", "b", "a"], LIMITS) == {"a": Outcome("passed"), "b": Outcome("passed")}
    assert sorted(ran) == ["a", "b"]


def test_another_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="this is darwin; use a Linux machine"):
        run_program("", LIMITS)
