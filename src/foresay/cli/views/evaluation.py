"""Acceptance and quality as tables."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foresay.cli.views.tables import plain_table
from foresay.evaluation.acceptance import AcceptanceRow, Evaluation
from foresay.evaluation.code.pass_at_k import CodeQuality
from foresay.evaluation.task_quality import Quality


def evaluation_view(found: Evaluation) -> Group:
    """Tokens per step by benchmark and number of masks, as paper A's Table 1; acceptance by position below."""
    settings = found.provenance["settings"]
    steps, tokens = settings["paper_steps"], settings["max_new_tokens"]
    parts: list[RenderableType] = [
        _rates(found, "paper", f"tokens per step by masks, the first {steps} steps"),
        "",
        _rates(found, "whole", f"tokens per step by masks, whole answers (at most {tokens} tokens)"),
        "",
        _positions([row for row in found.domains if row.masks == max(row.masks for row in found.domains)]),
        "",
        _notes(found),
    ]
    return Group(*parts)


def _rates(found: Evaluation, which: str, title: str) -> Table:
    masks = sorted({row.masks for row in found.rows})
    table = plain_table(title, "", *map(str, masks), "95 %")
    for domain, of_domain in _by_domain(found.domains):
        benchmarks = [row for row in found.rows if row.domain == domain]
        names = list(dict.fromkeys(row.benchmark for row in benchmarks))
        table.add_section()
        table.add_row(Text(domain, style="bold"), *_cells(of_domain, which))
        for name in names if names != [domain] else []:
            table.add_row(f"  {name}", *_cells([row for row in benchmarks if row.benchmark == name], which))
    return table


def _by_domain(rows: Sequence[AcceptanceRow]) -> list[tuple[str, list[AcceptanceRow]]]:
    domains = dict.fromkeys(row.domain for row in rows)
    return [(domain, [row for row in rows if row.domain == domain]) for domain in domains]


def _cells(rows: Sequence[AcceptanceRow], which: str) -> list[str]:
    """A rate for each number of masks, and the interval of the last."""
    ordered = sorted(rows, key=lambda row: row.masks)
    rates = [getattr(row, which) for row in ordered]
    last = rates[-1]
    interval = "one prompt" if last.low is None else f"{last.low:.2f}-{last.high:.2f}"
    return [*(f"{rate.value:.2f}" for rate in rates), interval]


def _positions(rows: Sequence[AcceptanceRow]) -> Table:
    most = max(len(row.acceptance) for row in rows)
    table = plain_table(
        "drafts kept by position, %: of all, and where the one before was", "", *map(str, range(1, most + 1))
    )
    for row in rows:
        table.add_row(row.domain, *(f"{100 * entry.unconditional:.0f}" for entry in row.acceptance))
        table.add_row("", *(f"{100 * entry.conditional:.0f}" for entry in row.acceptance), style="dim")
    return table


def _notes(found: Evaluation) -> Text:
    last = [row for row in found.domains if row.masks == max(row.masks for row in found.domains)]
    loops = ", ".join(f"{row.domain} {row.repeated_4grams:.0%}" for row in last)
    ended = ", ".join(f"{row.domain} {row.stopped:.0%}" for row in last)
    return Text(
        f"{sum(row.prompts for row in last)} prompts. Answers that ended by themselves: {ended}.\n"
        f"Repeated 4-grams, which make drafting easier: {loops}.",
        style="dim",
    )


def quality_table(quality: Quality) -> Table:
    """Every score of both."""
    table = plain_table("quality", "task", "metric", "base", "accelerated", "same answers")
    for task in quality.tasks:
        for number, (metric, score) in enumerate(task.base.items()):
            same = f"{task.identical}/{task.documents}"
            table.add_row(
                "" if number else task.task,
                metric,
                f"{score:.4f}",
                f"{task.accelerated[metric]:.4f}",
                "" if number else same,
            )
    return table


def code_table(quality: CodeQuality) -> Table:
    """pass@k of plain decoding and of each layout, with the interval of the last k."""
    ks = [rate.k for rate in quality.results[0].pass_at]
    columns = [f"pass@{k}, %" for k in ks]
    table = plain_table("problems answered with code", "problems", "T", "layout", *columns, "95 %", "same texts")
    for result in quality.results:
        last, whole = result.pass_at[-1], result.answers * len(result.passed)
        table.add_row(
            f"{result.benchmark} ({len(result.passed)})",
            f"{result.temperature:g}",
            result.layout,
            *(f"{100 * rate.value:.1f}" for rate in result.pass_at),
            "one problem" if last.low is None or last.high is None else f"{100 * last.low:.1f}-{100 * last.high:.1f}",
            f"{result.identical}/{whole}",
        )
    return table
