"""`foresay report`: a run as one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foresay.cli.terminal import ERR, OUT, print_json
from foresay.evaluation.report.cards import verdict
from foresay.evaluation.report.page import report
from foresay.evaluation.report.result_files import read_run
from foresay.foundation.files import check_file, write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCommand:
    """Make one HTML file of a run: verdict, certificate, charts, texts, provenance and all raw data.

    It needs no network, follows a light or dark screen, reads on a phone and prints. Charts need matplotlib
    (pip install 'foresay[plot]').

    Examples:
      foresay check smollm2 --out run/certificate.json && foresay eval smollm2 --out run/eval.json
      foresay bench smollm2 --json > run/bench.json && foresay calibrate smollm2 --json > run/costs.json
      foresay report run --out report.html
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER-OR-FILES")]
    """JSON of check, bench, eval, calibrate, advise, study or train, or folders of them."""
    out: Path
    """File for the page."""
    title: str = "foresay: a run"
    """Heading of the page."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Read, draw, write."""
        check_file(self.out)
        run = read_run(list(self.paths))
        for path in run.unreadable:
            ERR.print(
                f"{path} holds no JSON, so the report is without it; make it anew, or remove it",
                style="yellow",
                highlight=False,
            )
        write_whole(self.out, report(run, self.title))
        if self.json:
            files = [{"name": file.name, "kind": file.kind} for file in run.files]
            print_json({"file": str(self.out), "verdict": verdict(run), "files": files})
        else:
            OUT.print(f"the report lies in {self.out}", highlight=False)
        return 0
