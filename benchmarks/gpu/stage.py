"""Runs stages in this process: imports them, waits for a line on standard input, runs one after the other.

`run.py` starts it; by hand: `echo | python benchmarks/gpu/stage.py JOB STAGE ...`, with the job as JSON.
"""

import json
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from job import Deadline, Job, Record, Skipped, result_file

sys.path.insert(0, str(Path(__file__).parents[1]))


def run(job: Job, name: str) -> None:
    """One stage, whatever becomes of it."""
    from bases import provenance  # noqa: PLC0415 - imports torch

    record = Record(result_file(job.out, name), name)
    record.write()
    try:
        record.provenance = provenance(job, name)
        import_module(f"stages.{name}").run(job, record, Deadline(job.caps.get(name, 1e9)))
    except Skipped as reason:
        record.close(f"skipped: {reason}")
    except Exception as error:
        traceback.print_exc()
        record.close(f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    else:
        record.close("done")


def main() -> None:
    """Import, wait, run."""
    job, names = Job(**json.loads(sys.argv[1])), sys.argv[2:]
    for name in names:
        with suppress(ImportError):  # `run` says so, in the stage's results
            import_module(f"stages.{name}")
    if not sys.stdin.readline():
        return  # Whoever started it is gone.
    for name in names:
        print(f"== {name}", flush=True)
        run(job, name)


if __name__ == "__main__":
    main()
