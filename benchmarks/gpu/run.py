"""The whole system on one GPU in about nine minutes: stages, each in a process of its own, each with a cap.

    python benchmarks/gpu/run.py --out results --base model.gguf --prompts prompts.jsonl
    python benchmarks/gpu/run.py --out results --stages laws steps
    python benchmarks/gpu/run.py --out results --dry-run

A stage writes its results to OUT/STAGE.json after every figure, and is killed at its cap. One that fails or is cut
stops no other. OUT gets at most eight files: a JSON for each stage, run.log, and adapter.tar, the trained adapter.
`--dry-run` runs every stage on a CPU with toys, in one process. Exit status 1: a stage failed or was cut. README.md
beside this file says what the stages measure, and why in this order.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from job import Job, result_file, write_json

CAPS = {"laws": 80.0, "steps": 90.0, "adapter": 200.0, "seconds": 80.0, "memory": 40.0, "serve": 50.0}
"""Seconds of each stage, in the order in which they run."""
PREPARE, PREPARE_CAP = "prepare", 80.0
NEED_BASE = {"steps", "adapter", "seconds", "serve"}
"""Stages that wait until the base is converted, which goes on beside `laws`."""
DRY_CAP = 1800.0
"""Of a dry run as a whole: generous, as it shows that everything runs, on whatever machine."""
MOST_BYTES = 16_000_000
"""Of a file in OUT."""
STAGE = Path(__file__).with_name("stage.py")


@dataclass(slots=True)
class Process:
    """Stages in a process that has imported what they need and waits to be told to go."""

    stages: tuple[str, ...]
    cap: float
    running: "subprocess.Popen[bytes]"
    began: float = 0.0

    @classmethod
    def start(cls, job: Job, stages: tuple[str, ...], cap: float, log: BinaryIO) -> "Process":
        """Let it import."""
        command = [sys.executable, str(STAGE), json.dumps(asdict(job)), *stages]
        return cls.of(command, stages, cap, log)

    @classmethod
    def of(cls, command: list[str], stages: tuple[str, ...], cap: float, log: BinaryIO) -> "Process":
        """A command that waits for a line on its standard input."""
        # A session of its own: at the cap it is killed with all that it started.
        running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        return cls(stages, cap, running)

    def go(self) -> None:
        """Begin; the cap counts from now on."""
        self.began = time.monotonic()
        assert self.running.stdin is not None
        with suppress(BrokenPipeError):  # it ended while it imported; `wait` says so
            self.running.stdin.write(b"go\n")
            self.running.stdin.close()

    def wait(self) -> str:
        """Wait until it ends, at most to its cap; empty where it ended well, else how it ended."""
        try:
            status = self.running.wait(max(self.began + self.cap - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self.kill()
            return f"cut at its cap of {self.cap:.0f} s"
        self.kill()
        return f"ended with status {status}" if status else ""

    def kill(self) -> None:
        """End it, and whatever it started and left behind."""
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


def run(job: Job, groups: list[tuple[str, ...]], log: BinaryIO) -> dict[str, str]:
    """Run the groups of stages one after the other; the status of each stage."""
    statuses: dict[str, str] = {}
    with ExitStack() as stack:

        def start(job: Job, stages: tuple[str, ...], cap: float) -> Process:
            process = Process.start(job, stages, cap, log)
            stack.callback(process.kill)  # whatever happens, nothing of ours goes on
            return process

        prepare = None
        if Path(job.base).suffix == ".gguf" and NEED_BASE & {stage for group in groups for stage in group}:
            prepare = start(replace(job, out=job.work), (PREPARE,), PREPARE_CAP)
            prepare.go()
        coming = start(job, groups[0], cap_of(job, groups[0]))
        for following in [*groups[1:], ()]:
            current = coming
            if following:  # it imports while the one before it runs
                coming = start(job, following, cap_of(job, following))
            if prepare and NEED_BASE & set(current.stages):
                say(f"{PREPARE}: {prepare.wait() or 'done'}")
                prepare = None
            current.go()
            ended = current.wait()
            for stage in current.stages:
                statuses[stage] = settled(job, stage, ended)
                say(f"{stage}: {statuses[stage]}")
    return statuses


def cap_of(job: Job, stages: tuple[str, ...]) -> float:
    """Seconds of stages that share a process."""
    return DRY_CAP if job.dry_run else sum(job.caps[stage] for stage in stages)


def settled(job: Job, stage: str, ended: str) -> str:
    """The status of a stage whose process has ended; one that could not write it itself gets it written."""
    path = result_file(job.out, stage)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {"stage": stage, "provenance": {}, "status": "running", "results": [], "left_out": [], "summary": []}
    if content["status"] == "running":
        content["status"] = ended or "ended without a word"
        write_json(path, content)
    return str(content["status"])


def pack(job: Job) -> str:
    """Put the trained adapter into OUT/adapter.tar, where there is one and it is small enough; what became of it."""
    folder, tar = job.trained, Path(job.out) / "adapter.tar"
    if not (folder / "foresay.json").is_file():
        return ""
    fresh = Path(job.work) / tar.name
    with tarfile.open(fresh, "w") as packed:
        packed.add(folder, arcname=folder.name)
    size = fresh.stat().st_size
    if size > MOST_BYTES:
        return f"the adapter takes {size} bytes, over {MOST_BYTES}: it stays in {folder}"
    tar.write_bytes(fresh.read_bytes())
    return f"the adapter lies in {tar}, {size} bytes"


def cut_log(path: Path) -> None:
    """Keep the end of a log that grew too large."""
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        path.write_bytes(content[-MOST_BYTES:])


def say(line: str) -> None:
    """Tell whoever looks on."""
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: list[str] | None = None) -> tuple[Job, list[str]]:
    """The job and its stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results: new, or of an earlier run")
    parser.add_argument("--stages", nargs="+", choices=CAPS, default=list(CAPS))
    parser.add_argument("--base", default="", help="SmolLM2-135M-Instruct: a folder, a .gguf file or a name")
    parser.add_argument("--prompts", default="", help="prompts for the adapter (a row each); default: FORESAY_DATA's")
    parser.add_argument("--adapter", default="", help="a trained model for seconds and serve")
    parser.add_argument("--work", type=Path, help="folder of caches and answers; default: OUT with .work at its end")
    parser.add_argument("--cap", nargs="+", default=[], metavar="STAGE=SECONDS", help="another cap for a stage")
    parser.add_argument("--commit", default="", help="what is measured, where there is no checkout")
    parser.add_argument("--dry-run", action="store_true", help="every stage on a CPU with toys")
    given = parser.parse_args(arguments)
    caps = dict.fromkeys(CAPS, DRY_CAP) if given.dry_run else dict(CAPS)
    for text in given.cap:
        stage, _, seconds = text.partition("=")
        if stage not in CAPS or not seconds.replace(".", "", 1).isdigit():
            parser.error(f"--cap is {text!r}; give STAGE=SECONDS with a stage of {', '.join(CAPS)}")
        caps[stage] = float(seconds)
    work = given.work or given.out.with_name(f"{given.out.name}.work")
    prompts = given.prompts or ("" if given.dry_run else default_prompts())
    for place in (given.prompts, given.adapter):
        if place and not Path(place).exists():
            parser.error(f"{place} is not there; give a file or folder that is")
    job = Job(
        *(str(path.absolute()) for path in (given.out, work)),
        caps,
        base=given.base,
        prompts=prompts,
        adapter=given.adapter,
        commit=given.commit,
        dry_run=given.dry_run,
    )
    return job, [stage for stage in CAPS if stage in given.stages]


def default_prompts() -> str:
    """The prompts of FORESAY_DATA, where it has them."""
    path = Path(os.environ.get("FORESAY_DATA", "")) / "prompts" / "instructions.jsonl"
    return str(path) if "FORESAY_DATA" in os.environ and path.is_file() else ""


def main() -> int:
    """Run, pack, tell; the exit status."""
    job, stages = parsed()
    out = Path(job.out)
    for folder in (out, Path(job.work)):
        folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:  # what an earlier run left is not this run's
        result_file(job.out, stage).unlink(missing_ok=True)
    os.environ.setdefault("FORESAY_CACHE", str(Path(job.work) / "cache"))
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    groups = [tuple(stages)] if job.dry_run else [(stage,) for stage in stages]
    # Stages have sessions of their own: who ends this program must end them, and does on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    began = time.monotonic()
    with (out / "run.log").open("wb") as log:
        statuses = run(job, groups, log)
    cut_log(out / "run.log")
    packed = pack(job)
    for stage, status in statuses.items():
        content = json.loads(result_file(job.out, stage).read_text(encoding="utf-8"))
        print(f"{stage}: {status}, {content.get('seconds', 0):.0f} s", *content["summary"], sep="\n  ")
    print(*filter(None, [packed, f"{time.monotonic() - began:.0f} s in all; results lie in {out}"]), sep="\n")
    return 0 if all(status == "done" or status.startswith("skipped") for status in statuses.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
