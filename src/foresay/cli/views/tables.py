"""Results as tables."""

from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foresay.cli.terminal import OUT, can_write
from foresay.decoding.step_costs import Curve, Forecast
from foresay.evaluation.lossless.certificate import Certificate
from foresay.evaluation.speed.bench import RATIO_RULE, Bench, Result
from foresay.evaluation.speed.timed_runs import LOOKUP, TRANSFORMERS

_MORE_OR_LESS = "±" if can_write("±", OUT.encoding) else "+-"
BENCH_COLUMNS = (
    "tokens\n/s",
    "\nspread",
    "tokens\n/step",
    "times\nplain",
    "times\ntransf.",
    "effi-\nciency",
    "first\nms",
    "peak\nMB",
)


def bench_view(bench: Bench) -> Group:
    """Every result, a table for each batch size and prompt length; where those are several, a summary below."""
    cases = dict.fromkeys((result.lengthened_to, result.batch_size) for result in bench.results)
    tables = []
    for length, size in cases:
        results = [r for r in bench.results if (r.lengthened_to, r.batch_size) == (length, size)]
        tables.append(_bench_table(results))
        drafting = [result for result in results if result.acceptance_per_position]
        tables += [_acceptance_table(drafting)] if drafting else []
    if len(cases) > 1:
        tables += [_speedup_table(bench, length) for length in bench.lengths]
    spaced: list[RenderableType] = [part for table in tables for part in (table, "")]
    return Group(*spaced, _bench_notes(bench))


def _bench_table(results: Sequence[Result]) -> Table:
    """All decoders on all domains at one batch size and prompt length."""
    first = results[0]
    title = f"batch {first.batch_size}, {_prompts(first.lengthened_to)}, {first.dtype}"
    table = plain_table(title, "", *BENCH_COLUMNS)
    for domain, own in groupby(results, lambda result: result.domain):
        table.add_section()
        table.add_row(Text(domain, style="bold"))
        for result in own:
            table.add_row(*_bench_row(result))
    return table


def _bench_row(result: Result) -> list[str]:
    low, high = result.tokens_per_second_spread
    first, peak = 1000 * result.first_token_seconds, result.peak_memory_bytes
    return [
        f"  {result.label}",
        f"{result.tokens_per_second:.0f}",
        f"{_MORE_OR_LESS}{(high - low) / 2 / result.tokens_per_second:.0%}" if high > low else "",
        f"{result.tokens_per_step:.2f}",
        result.over_plain,
        f"{result.speedup_vs_transformers:.2f}",
        f"{result.efficiency:.2f}",
        f"{first:.{1 if first < 100 else 0}f}",
        "" if peak is None else f"{peak / 1e6:.0f}",
    ]


def _acceptance_table(results: Sequence[Result]) -> Table:
    """Share of steps that kept the first, second, ... draft."""
    most = max(len(result.acceptance_per_position) for result in results)
    table = plain_table("drafts kept, by position, %", "", *map(str, range(1, most + 1)))
    for domain, own in groupby(results, lambda result: result.domain):
        table.add_section()
        table.add_row(Text(domain, style="bold"))
        for result in own:
            table.add_row(f"  {result.label}", *(f"{100 * share:.0f}" for share in result.acceptance_per_position))
    return table


def _speedup_table(bench: Bench, length: int) -> Table:
    """Decoder by batch size: the figures that `--plot` draws."""
    speedups = bench.speedups(length)
    table = plain_table(f"times plain, mean of the domains, {_prompts(length)}", "batch", *map(str, speedups))
    for label in dict.fromkeys(label for own in speedups.values() for label in own):
        table.add_row(f"  {label}", *(f"{own[label]:.2f}" if label in own else "" for own in speedups.values()))
    return table


def _bench_notes(bench: Bench) -> Text:
    """What stands beside the figures."""
    ours = [result for result in bench.results if result.decoder not in (TRANSFORMERS, LOOKUP)]
    same, asked = sum(result.identical for result in ours), sum(result.prompts for result in ours)
    loops: dict[str, list[float]] = {}
    for result in bench.results:
        loops.setdefault(result.domain, []).append(result.repeated_4grams)
    shares = ", ".join(f"{domain} {_percent(some)}" for domain, some in loops.items())
    return Text(
        f"{same} of {asked} answers are identical to transformers' own. Repeated 4-grams in\n"
        f"them, which make drafting easier: {shares}.\n"
        f"{RATIO_RULE}\n"
        "As plain: `planned` took plain steps there, so it counts as 1. Spread: half of\n"
        "largest minus smallest. Efficiency: times plain over tokens a step. First:\n"
        "until the first token. Peak: memory of the whole process (CUDA: of tensors on\n"
        "the device).",
        style="dim",
    )


def _percent(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def _prompts(length: int) -> str:
    return f"prompts of {length} tokens" if length else "prompts as they are"


def plain_table(title: str, first: str, *headings: str) -> Table:
    """A table for 80 columns: words on the left, figures on the right."""
    table = Table(
        title=title,
        title_justify="left",
        min_width=len(title),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def curve_table(curve: Curve, forecasts: Sequence[Forecast]) -> Table:
    """What each entry of the menu costs and promises."""
    title = f"batch {curve.batch_size}, {curve.context_tokens} tokens cached"
    table = plain_table(title, "layout", "rows", "ms/step", "undrafted", "times plain", "expected tokens/s")
    for found in forecasts:
        table.add_row(
            found.label + (" <" if found.chosen else ""),
            str(found.rows),
            f"{1000 * found.drafted_seconds:.2f}",
            f"{1000 * found.undrafted_seconds:.2f}",
            f"{found.times_plain:.2f}",
            f"{found.tokens_per_second:.0f}",
            style="bold" if found.chosen else "",
        )
    return table


def count_table(certificate: Certificate) -> Table:
    """Every layout at every batch size."""
    table = plain_table(
        "answers", "layout", "batch", "answers", "identical", "ties", "bugs", "bugs at most", "tokens/step"
    )
    for count in certificate.counts:
        table.add_row(
            count.layout,
            *map(str, (count.batch_size, count.answers, count.identical, count.ties, count.bugs)),
            f"{count.bugs_at_most:.2%}",
            f"{count.tokens_per_step:.2f}",
        )
    return table


def divergence_table(certificate: Certificate) -> Table:
    """Every divergence with its verdict."""
    table = Table(title="first divergences", title_justify="left")
    for heading in (
        "prompt",
        "layout",
        "batch",
        "position",
        "plain",
        "accelerated",
        "margin",
        "bound",
        "in float32",
        "verdict",
    ):
        table.add_column(heading)
    for found in certificate.divergences:
        table.add_row(
            f"{found.domain} {found.prompt}",
            found.layout,
            str(found.batch_size),
            str(found.position),
            str(found.plain_token),
            str(found.accelerated_token),
            f"{found.margin:.2e}",
            f"{found.bound:.2e}",
            "differs" if found.diverges_in_float32 else "equal",
            found.verdict,
        )
    return table
