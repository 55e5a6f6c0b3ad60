"""The page: one card for each question, then everything that the answers rest on."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from foresay.evaluation.report.cards import cards, failed, passed, verdict
from foresay.evaluation.report.charts import charts
from foresay.evaluation.report.result_files import ResultFiles
from foresay.evaluation.speed.bench import RATIO_RULE
from foresay.foundation.errors import DataError
from foresay.foundation.heartbeat import span

TEMPLATE = "page.html.j2"
STEPS = 6
"""Colours that the steps of a sample take in turn."""


def report(run: ResultFiles, title: str) -> str:
    """The page for these files. Raises DataError, ConfigError."""
    try:
        return _drawn(run, title)
    except (AttributeError, LookupError, TypeError, ValueError, UndefinedError) as error:
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
    environment.filters["span"] = span
    return environment.get_template(TEMPLATE).render(
        title=title,
        cards=cards(run),
        verdict=verdict(run),
        failed=failed(run),
        ratio_rule=RATIO_RULE,
        run=run,
        passed=passed,
        charts=[(chart, Markup(chart.svg)) for chart in charts(run)],
        steps=STEPS,
        raw=Markup(for_script(files)),
    )


def for_script(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")
