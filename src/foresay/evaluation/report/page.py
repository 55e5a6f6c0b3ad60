"""The page: the verdict in a sentence, then everything that it rests on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from foresay.evaluation.report.charts import charts
from foresay.evaluation.report.result_files import ResultFiles, read_run
from foresay.evaluation.speed.bench import Bench
from foresay.evaluation.speed.timed_runs import LOOKUP, TRANSFORMERS
from foresay.foundation.errors import DataError

TEMPLATE = "page.html.j2"
KEPT = 1.01
"""Tokens a step from which a decoder kept drafts."""
STEPS = 6
"""Colours that the steps of a sample take in turn."""


@dataclass(frozen=True, slots=True)
class Best:
    """The decoder that was fastest over all domains of a batch size and prompt length."""

    label: str
    batch_size: int
    speedup: float


def report(paths: list[Path], title: str) -> str:
    """The page for these files and folders. Raises DataError, ConfigError."""
    run = read_run(paths)
    try:
        return _drawn(run, title)
    except (KeyError, IndexError, TypeError, UndefinedError) as error:
        names = ", ".join(file.name for file in run.files)
        raise DataError(
            f"one of {names} lacks what a report shows ({type(error).__name__}: {error}); make it anew"
        ) from error


def _drawn(run: ResultFiles, title: str) -> str:
    files = {file.name: file.content for file in run.files}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=title,
        verdict=verdict(run),
        failed=not all(map(_passed, run.of("certificate")))
        or any(map(_differs, run.of("evaluation")))
        or not all(content["verdict"]["holds"] for content in run.of("study")),
        run=run,
        passed=_passed,
        charts=[(chart, Markup(chart.svg)) for chart in charts(run)],
        steps=STEPS,
        raw=Markup(for_script(files)),
    )


def for_script(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")


def verdict(run: ResultFiles) -> str:
    """What the run shows, in a sentence."""
    parts = [content["sentence"].rstrip(".") for content in run.of("certificate")]
    parts += [content["sentence"].rstrip(".") for content in run.of("evaluation") if _differs(content)]
    parts += [part for content in run.of("evaluation") for part in _rates(content)]
    parts += [content["verdict"]["sentence"].rstrip(".") for content in run.of("study")]
    found = [best for bench in run.benches for best in fastest(bench)]
    if found:
        best = max(found, key=lambda one: one.speedup)
        where = f"{best.label}, batch {best.batch_size}, mean of the domains"
        times = f"{best.speedup:.2f} times plain decoding"
        parts.append(
            f"{times} at best ({where})" if best.speedup > 1 else f"nothing is faster than plain here: {times}"
        )
    elif run.benches:
        parts.append("no drafts were kept, so nothing is faster than plain decoding here")
    if not found:
        parts += [content["sentence"].rstrip(".") for content in run.of("advice")]
    return "; ".join(parts) + "." if parts else "Nothing was checked or measured in this run yet."


def fastest(bench: Bench) -> list[Best]:
    """The fastest of our decoders in each case."""
    return [
        Best(label, size, speedup)
        for length in bench.lengths
        for size, row in bench.speedups(length).items()
        for ours in [{label: ratio for label, ratio in _ours(row).items() if _kept_drafts(bench, size, label)}]
        for label, speedup in [max(ours.items(), key=lambda pair: pair[1], default=("", 0.0))]
        if label
    ]


def _kept_drafts(bench: Bench, size: int, label: str) -> bool:
    """At one token a step, as where `planned` chose plain, a ratio to plain is noise."""
    rows = [row for row in bench.results if (row.batch_size, row.label) == (size, label)]
    return any(row.tokens_per_step > KEPT for row in rows)


def _ours(row: dict[str, float]) -> dict[str, float]:
    return {label: speedup for label, speedup in row.items() if label not in (TRANSFORMERS, LOOKUP)}


def _rates(content: dict[str, Any]) -> list[str]:
    """Tokens per step of the domains at most masks."""
    most = max((row["masks"] for row in content["domains"]), default=0)
    rows = sorted((row for row in content["domains"] if row["masks"] == most), key=lambda row: row["whole"]["value"])
    if not rows:
        return []
    low, high = rows[0], rows[-1]
    said = [f"{row['whole']['value']:.2f} ({row['domain']})" for row in (low, high)]
    return [f"{' to '.join(dict.fromkeys(said))} tokens a step at {most} masks"]


def _passed(certificate: dict[str, Any]) -> bool:
    """Old certificates say only how many bugs there are."""
    return bool(certificate.get("passed", not certificate["bugs"]))


def _differs(evaluation: dict[str, Any]) -> bool:
    """Quality was compared, and an answer or a score is not the base's."""
    tasks = (evaluation.get("quality") or {}).get("tasks", ())
    return any(task["base"] != task["accelerated"] or task["identical"] < task["documents"] for task in tasks)
