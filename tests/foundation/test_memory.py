"""Peak memory: a mark that can be set back."""

import mmap

import pytest
import torch

from foresay.foundation.machine import peak_bytes, restart_peak

CPU = torch.device("cpu")
MANY = 256 * 2**20
"""Bytes that no other test in this process takes and gives back meanwhile."""


def hold_new_pages(size: int) -> None:
    """Touch `size` bytes that the process did not hold, and give them back.

    A tensor may lie in what earlier tests left to the allocator, which is resident already, and the peak stays.
    """
    with mmap.mmap(-1, size) as pages:
        for place in range(0, size, mmap.PAGESIZE):
            pages[place] = 1


def test_the_peak_is_that_of_the_stretch() -> None:
    if not restart_peak(CPU):
        pytest.skip("this system does not tell")
    before = peak_bytes(CPU)
    hold_new_pages(MANY)
    held = peak_bytes(CPU)
    assert held >= before + 0.5 * MANY
    restart_peak(CPU)
    assert peak_bytes(CPU) <= held - 0.5 * MANY


def test_a_system_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("foresay.foundation.machine.MARKS", tmp_path)  # a folder cannot be written
    assert not restart_peak(CPU)
