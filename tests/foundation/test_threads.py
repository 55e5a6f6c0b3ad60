"""A thread that ends takes its OpenMP threads with it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from foresay.foundation.threads import in_thread

COUNTS = """
import os, time, torch
from foresay.foundation.threads import in_thread

def count():
    return len(os.listdir("/proc/self/task"))

def work():
    torch.rand(512, 512) @ torch.rand(512, 512)
    torch.rand(1_000_000).exp()
    return count()

torch.set_num_threads(4)
before = count()
within = in_thread(work)
for _ in range(100):  # they end soon after it
    if count() == before:
        break
    time.sleep(0.1)
print(before, within, count())
"""


def test_it_gives_what_the_task_gives() -> None:
    assert in_thread(threading.current_thread) is not threading.current_thread()


def test_it_raises_what_the_task_raises() -> None:
    with pytest.raises(SystemExit, match="3"):
        in_thread(lambda: sys.exit("3"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux lists them")
def test_no_openmp_thread_of_the_task_stays() -> None:
    own = {**os.environ, "OMP_NUM_THREADS": "4"}
    said = subprocess.run([sys.executable, "-c", COUNTS], env=own, check=True, capture_output=True, text=True).stdout
    before, within, after = map(int, said.split())
    assert within >= before + 3
    assert after == before
