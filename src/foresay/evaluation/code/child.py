"""One program of a model's, inside a process of its own: `sandbox.py` starts this file and reads its one word.

It stands alone: it is run by path, with nothing but Python's standard library. The program comes by stdin. It can end
the process and crash it, but it passes only where its last line was reached: the word is written after that.
"""

import os
import resource
import sys
from typing import Any

REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "shutil.", "pty.", "ftplib.", "smtplib.", "urllib.", "webbrowser."),
    *("os.chmod", "os.chown", "os.exec", "os.fork", "os.kill", "os.link", "os.mkdir", "os.posix_spawn", "os.remove"),
    *("os.rename", "os.rmdir", "os.spawn", "os.symlink", "os.system", "os.truncate", "os.utime"),
)
"""What Python's audit events of a program may not begin with."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WORD = 80
"""Most characters of what is said of a program."""


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no network, no other processes, no files but for reading. It cannot be taken off again."""
    if event.startswith(REFUSED) or (event == "open" and arguments[2] & WRITES):
        raise PermissionError(f"{event} is refused to programs that a model wrote")


def limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Bound this process: past its time it is killed, past its memory it gets MemoryError."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(program: bytes) -> bytes:
    """`passed`, `memory`, or `failed` and the kind of the error."""
    try:
        exec(compile(program, "program.py", "exec"), {"__name__": "program"})
    except MemoryError:
        return b"memory"
    except BaseException as error:  # sys.exit too: tests after it were not reached
        return f"failed {type(error).__name__}"[:WORD].encode()
    return b"passed"


def main() -> None:
    """Read, forbid, run, tell."""
    program = sys.stdin.buffer.read()
    told = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    limit(int(sys.argv[1]), int(sys.argv[2]))
    sys.addaudithook(refuse)
    os.write(told, run(program))
    os._exit(0)  # threads that the program left do not hold it up


if __name__ == "__main__":
    main()
