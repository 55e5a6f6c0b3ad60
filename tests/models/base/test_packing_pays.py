"""Whether packed linears pay: the decision, what is kept of the measurement, and what is measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foresay.foundation import machine
from foresay.models.base import packing_pays
from tests.support.toys import LLAMA, with_adapter


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float, float], bool]:
    """Opens a toy where packed products take so many times as long as plain ones: in steps, and at prompts' rows."""
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path))

    def found(steps: float, prefill: float) -> bool:
        seconds = {"plain": [1.0] * 6, "packed": [steps] * 5 + [prefill]}
        monkeypatch.setattr(packing_pays, "measure", lambda groups, unembedding: seconds)
        monkeypatch.setattr(packing_pays, "DECIDED", {})
        mtp = with_adapter(LLAMA.model())
        mtp.packing.want("auto")
        return mtp.packing.packs

    return found


@pytest.mark.parametrize(("steps", "prefill", "pays"), [(0.7, 1, True), (1.1, 1, False), (0.7, 1.5, False)])
def test_auto_packs_where_steps_get_faster_and_prompts_no_slower(
    measured: Callable[[float, float], bool], steps: float, prefill: float, pays: bool
) -> None:
    assert measured(steps, prefill) == pays


def test_what_was_measured_is_kept_and_a_torn_file_measured_anew(
    measured: Callable[[float, float], bool], tmp_path: Path
) -> None:
    assert measured(0.5, 1)
    assert measured(2, 1), "the file of the first measurement was not read"
    [path] = tmp_path.glob("packing-*.json")
    path.write_text('{"plain": [1')
    assert not measured(2, 1)


def test_a_disturbed_measurement_is_made_again_by_three_processes_and_the_least_of_them_decides(
    measured: Callable[[float, float], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 100))
    monkeypatch.setattr(machine, "waited", lambda: float(next(clock)))
    assert [measured(2, 1), measured(3, 1), measured(0.5, 1), measured(4, 4)] == [False, False, True, True]
    [path] = tmp_path.glob("packing-*.json")
    assert json.loads(path.read_text())["tries"] == 3


def test_a_calm_measurement_takes_the_place_of_a_disturbed_one(
    measured: Callable[[float, float], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 9.0, 9.0, 9.0])
    monkeypatch.setattr(machine, "waited", clock.__next__)
    assert [measured(0.5, 1), measured(2, 1), measured(0.5, 1)] == [True, False, False]


def test_the_measurement_counts_all_linears_of_a_shape() -> None:
    mtp = with_adapter(LLAMA.model())
    seconds = packing_pays.measure(mtp.packing._linears.packable(), mtp.base.head)
    assert {name: len(row) for name, row in seconds.items()} == {"plain": 6, "packed": 6}
    assert all(second > 0 for row in seconds.values() for second in row)


def test_a_prompt_needs_the_unembedding_for_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, head, rows = torch.nn.Linear(16, 16), torch.nn.Linear(16, 64), list[int]()

    def noted(calls: Any, states: Tensor) -> dict[str, float]:
        rows.append(states.shape[1])
        return {}

    monkeypatch.setattr(packing_pays, "_least", noted)
    packing_pays.measure([(layer,), (head,)], head)
    assert rows == [*packing_pays.STEP_ROWS, packing_pays.PREFILL_ROWS, *packing_pays.STEP_ROWS, 1]


def test_linears_of_one_shape_and_two_dtypes_are_measured_apart() -> None:
    groups = [(torch.nn.Linear(16, 16),), (torch.nn.Linear(16, 16, dtype=torch.bfloat16),)]
    assert all(second > 0 for row in packing_pays.measure(groups, torch.nn.Linear(1, 1)).values() for second in row)
