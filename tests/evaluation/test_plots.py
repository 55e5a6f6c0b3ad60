"""Pictures: that they show what was measured, and say what is missing."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foresay.decoding.planning.planner import MENU, Cost
from foresay.decoding.step_costs import Curve
from foresay.evaluation.plots import draw_costs, draw_speedups, draw_study, require_matplotlib
from foresay.evaluation.speed.bench import Bench
from foresay.evaluation.studies.findings import Findings
from foresay.evaluation.studies.study import Figure, Spread, Verdict
from foresay.foundation.errors import ConfigError
from tests.cli.views.test_views import RESULT

CURVES = [
    Curve(batch, context, {entry: Cost(batch * (1 + entry.masks) / 1000, 1.0, 1 + 2 * entry.masks) for entry in MENU})
    for batch in (1, 4)
    for context in (128, 512)
]
BENCH = Bench(
    tuple(
        replace(RESULT, batch_size=size, lengthened_to=length, decoder=decoder, masks=0, speedup_vs_plain=speedup)
        for length in (0, 512)
        for size, decoder, speedup in [(1, "prompt lookup", 1.23), (1, "linear", 0.01), (4, "linear", 45.67)]
    ),
    {},
)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of each picture that is drawn."""
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot  # noqa: PLC0415

    made: list[Any] = []
    real = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: (made.extend(figure.axes), real(figure)))
    return made


def test_the_heat_map_shows_every_speed_up(panels: list[Any], tmp_path: Path) -> None:
    path = draw_speedups(BENCH, tmp_path / "new")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [panel.get_title() for panel in panels] == ["prompts as they are", "prompts of 512 tokens"]
    for panel in panels:
        assert [(text.get_position(), text.get_text()) for text in panel.texts] == [
            ((0, 0), "1.23"),
            ((0, 1), "0.01"),
            ((1, 1), "45.67"),
        ]
        assert [label.get_text() for label in panels[-1].get_xticklabels()] == ["1", "4"]


def test_the_cost_curve_shows_every_measurement(panels: list[Any], tmp_path: Path) -> None:
    path = draw_costs(CURVES, tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    [panel] = panels
    lines = {line.get_label(): list(zip(*line.get_data())) for line in panel.lines}
    assert lines.keys() == {f"batch {b}, {c} tokens cached" for b in (1, 4) for c in (128, 512)}
    assert lines["batch 4, 512 tokens cached"] == sorted(
        (cost.rows, 1000 * cost.drafted) for cost in CURVES[-1].costs.values()
    )
    assert len({(line.get_color(), line.get_linestyle()) for line in panel.lines}) == len(CURVES)


def test_a_missing_matplotlib_comes_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'foresay\[plot\]'"):
        require_matplotlib()


def test_a_folder_that_cannot_be_is_named(panels: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="give --plot a folder that can be written"):
        draw_costs(CURVES, tmp_path / "file")


def test_a_study_shows_medians_with_their_range(panels: list[Any], tmp_path: Path) -> None:
    def lines(*places: int | str) -> Any:
        return {label: {x: Spread(2.0, 1.5, 3.0, 3) for x in places} for label in ("full", "bare")}

    figures = (
        (Figure("rates", "Rates", "masks", "y"), lines(1, 8)),
        (Figure("parts", "Parts", "part", "y"), lines("a")),
    )
    found = Findings("ladder", 4, ("bare (seed 1)",), figures, Verdict("."), ())
    paths = draw_study(found, tmp_path)
    assert [path.name for path in paths] == ["ladder-rates.svg", "ladder-parts.svg"]
    assert all("<svg" in path.read_text() for path in paths)
    numbers, words = panels
    assert numbers.get_title() == "Rates\nPARTIAL: 0 of 4 cells"
    assert [
        line.get_xdata().tolist() for line in numbers.lines if len(line.get_xdata()) and line.get_marker() == "o"
    ] == [[1, 8]]
    ranges = [segment.tolist() for bars in numbers.collections for segment in bars.get_segments()]
    assert ranges == [[[1, 1.5], [1, 3]], [[8, 1.5], [8, 3]]] * 2
    assert [label.get_text() for label in words.get_xticklabels()] == ["a"]
    assert {line.get_linestyle() for line in words.lines} == {"None"}
