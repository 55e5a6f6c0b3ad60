"""What is shown fits a terminal of 80 columns, with large figures too; and no result is lost."""

import errno
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, Group, RenderableType

from foresay.cli import terminal
from foresay.cli.views.tables import bench_view, curve_table, plain_table
from foresay.cli.views.training import AdapterLines, TrainingView
from foresay.decoding.metrics import PositionAcceptance
from foresay.decoding.planning.planner import Entry
from foresay.decoding.step_costs import Curve, Forecast
from foresay.evaluation.speed.bench import RATIO_RULE, Bench, Result
from foresay.foundation import files as whole_file
from foresay.foundation.errors import ConfigError
from foresay.training.loop.progress import Losses, Progress
from foresay.training.runs.adapter_run import TrainUpdate
from foresay.training.runs.validation import Measured

RESULT = Result(
    decoder="quadratic",
    masks=16,
    batch_size=1,
    prompts=640,
    lengthened_to=0,
    prompt_tokens=8000.5,
    dtype="bfloat16",
    domain="stories",
    tokens_per_second=12345.6,
    tokens_per_second_spread=(3000.0, 13000.0),
    first_token_seconds=12.3456,
    peak_memory_bytes=139_999_000_000,
    tokens_per_step=17.25,
    acceptance_per_position=(1.0, 0.75) + (0.5,) * 14,
    repeated_4grams=0.125,
    identical=639,
    speedup_vs_plain=12.34,
    speedup_vs_transformers=11.23,
    efficiency=0.715,
)
FOREIGN = replace(RESULT, decoder="prompt lookup", masks=0, acceptance_per_position=(), identical=0)


def shown(what: RenderableType) -> list[str]:
    """Lines of a terminal of 80 columns."""
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get().splitlines()


@pytest.fixture
def lines() -> list[str]:
    results = [
        replace(result, batch_size=size, lengthened_to=length, domain=domain)
        for length in (0, 8192)
        for size in (1, 2, 4, 8, 16, 32, 64)
        for domain in ("stories", "math")
        for result in (FOREIGN, RESULT)
    ]
    return shown(bench_view(Bench(tuple(results), {})))


def test_nothing_is_cut_at_80_columns(lines: list[str]) -> None:
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert [line.split() for line in lines if line.startswith("  quadratic 16")][:2] == [
        ["quadratic", "16", "12346", "±41%", "17.25", "12.34", "11.23", "0.71", "12346", "139999"],
        ["quadratic", "16", "12346", "±41%", "17.25", "12.34", "11.23", "0.71", "12346", "139999"],
    ]
    assert ["quadratic", "16", "100", "75", *["50"] * 14] in [line.split() for line in lines]


def test_words_are_whole_in_a_table_that_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = plain_table("wide", "", *(f"heading-{number}" for number in range(12)))
    table.add_row("a-layout", *["measured"] * 12)
    monkeypatch.setattr(terminal, "OUT", terminal.Terminal(width=40, force_terminal=True, color_system=None))
    terminal.print_table(Group(table, "below"))
    shown = capsys.readouterr().out
    assert shown.split().count("measured") == 12
    assert all(f"heading-{number}" in shown for number in range(12))


def test_a_table_has_signs_that_can_be_written() -> None:
    assert [terminal.can_write("±", encoding) for encoding in ("utf-8", "ascii", "latin-1", "unknown")] == [
        True,
        False,
        True,
        False,
    ]


def test_the_rule_of_ratios_stands_below_the_table(lines: list[str]) -> None:
    assert RATIO_RULE in lines


def test_titles_stay_in_one_line_over_narrow_tables() -> None:
    narrow = replace(RESULT, acceptance_per_position=(0.5,))
    lines = shown(bench_view(Bench((narrow,), {})))
    assert "drafts kept, by position, %" in [line.strip() for line in lines]


def test_several_cases_have_a_summary(lines: list[str]) -> None:
    titles = [line.strip() for line in lines if line.startswith("times plain,")]
    assert titles == [
        "times plain, mean of the domains, prompts as they are",
        "times plain, mean of the domains, prompts of 8192 tokens",
    ]
    assert [line.split() for line in lines].count(["quadratic", "16", *["12.34"] * 7]) == 2
    alone = shown(bench_view(Bench((FOREIGN, RESULT), {})))
    assert not [line for line in alone if line.startswith("times plain,")]


def test_only_our_answers_count_as_identical() -> None:
    text = " ".join(shown(bench_view(Bench((FOREIGN, RESULT), {}))))
    assert "639 of 640 answers are identical" in text
    assert "stories 12%." in text
    more = replace(RESULT, lengthened_to=512, repeated_4grams=0.5)
    assert "stories 12% to 50%." in " ".join(shown(bench_view(Bench((RESULT, more), {}))))


def test_without_drafts_there_is_no_table_of_them() -> None:
    assert not [line for line in shown(bench_view(Bench((FOREIGN,), {}))) if line.startswith("drafts kept")]


def test_what_was_not_measured_stays_blank() -> None:
    blank = replace(RESULT, peak_memory_bytes=None, tokens_per_second_spread=(12345.6, 12345.6))
    row = next(line for line in shown(bench_view(Bench((blank,), {}))) if "quadratic 16" in line)
    assert row.split() == ["quadratic", "16", "12346", "17.25", "12.34", "11.23", "0.71", "12346"]


def test_the_curve_marks_what_is_chosen() -> None:
    forecasts = [
        Forecast(Entry("plain"), 1, 0.0123, 0.0123, 1.0, 81.3, False),
        Forecast(Entry("quadratic", 16), 289, 12.3, 1.23, 1000.0, 123456.7, True),
    ]
    lines = shown(curve_table(Curve(64, 8192, {}), forecasts))
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == "batch 64, 8192 tokens cached"
    assert [line.split() for line in lines[-2:]] == [
        ["plain", "1", "12.30", "12.30", "1.00", "81"],
        ["quadratic", "16", "<", "289", "12300.00", "1230.00", "1000.00", "123457"],
    ]


MEASURED = Measured(
    step=12000,
    fingerprint="",
    prompts=32,
    tokens_per_step={"math": 2.25, "code": 3.5, "stories": 4.0, "chat": 2.25},
    acceptance=tuple(PositionAcceptance(place, 100, 50, 0.5, 0.75) for place in range(1, 9)),
)
NEWS = TrainUpdate(Progress(12000, Losses(10.5, 11.5, 2.0, 24.0, 1536.0), 1e-3, 0.25, 9000.0, 0.5), MEASURED, MEASURED)


def told(*news: TrainUpdate, terminal: bool) -> list[str]:
    console = Console(width=80, force_terminal=terminal, color_system=None)
    with console.capture() as capture:
        view = TrainingView(console, 24000, AdapterLines())
        with view.showing():
            for one in news:
                view.tell(one)
    return [re.sub(r"\x1b\[[?0-9;]*\w", "", line).strip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("terminal", [True, False])
def test_training_is_told_whole(terminal: bool) -> None:
    """Every figure of a step and of a decode, in lines that a live view does not cut."""
    lines = told(NEWS, terminal=terminal)
    for line in (
        "held-out prompts decoded at step 12000, tokens per step:",
        "math 2.25  code 3.50  stories 4.00  chat 2.25  mean 3.00",
        "drafts kept, by position, %: 50 50 50 50 50 50 50 50",
        "given the one before, %:     75 75 75 75 75 75 75 75",
        "this is the best so far, mean 3.00: it is kept",
    ):
        assert line in lines
    step, pace = "loss 24.000  (base 10.500  sampler 11.500  consistency 2.000)", "rate 1.0e-03  gradient 0.25"
    assert [line for line in lines if step in line]
    assert [line for line in lines if f"{pace}  3,072 mask rows/s" in line]


def test_a_decode_is_told_once_on_a_plain_stream() -> None:
    later = replace(NEWS, progress=replace(NEWS.progress, step=12001), best=replace(MEASURED, step=9000))
    lines = told(NEWS, later, terminal=False)
    assert sum(line.startswith("held-out prompts decoded") for line in lines) == 1
    assert [
        line for line in told(later, terminal=False) if line == "the best is that of step 9000, mean 3.00: it is kept"
    ]


def test_many_domains_are_not_cut() -> None:
    many = replace(MEASURED, tokens_per_step={f"domain{place}": 1.5 for place in range(9)})
    for wide in (True, False):
        text = " ".join(told(replace(NEWS, measured=many), terminal=wide))
        assert re.search(r"domain0 1\.50 .*domain8 1\.50\s+mean 1\.50", text)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_disk_loses_no_result(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(whole_file, "put", full)
    tell = None if as_json else lambda: print("a sentence")
    with pytest.raises(ConfigError, match=r"No space left.*stands above as JSON"):
        terminal.tell_and_keep({"answers": 3}, tell, tmp_path / "out.json")
    said = capsys.readouterr().out
    assert json.loads(said.removeprefix("a sentence\n")) == {"answers": 3}
    assert said.startswith("a sentence") is not as_json
    assert not list(tmp_path.iterdir())
