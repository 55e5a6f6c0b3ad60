"""How long a server takes until it hears: from the start of `foresay serve` to the first answer of `/health`.

Twice for each model: with no costs of steps on disk, which the server then measures in the background, and with those
that the first one left. `opened` is the time that a process needs for its imports and for reading the model, and does
nothing else; the difference is what serving adds. Bases that were converted before stay so.

    python benchmarks/start.py nano smollm2 --rounds 3 > benchmarks/results/serving/start.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from foresay.foundation.files import cache_folder
from foresay.foundation.provenance import provenance

sys.path.insert(0, str(Path(__file__).parent))
from load import serving

OPEN = "import sys; from foresay import MultiTokenModel; MultiTokenModel.from_pretrained(sys.argv[1])"


def opened(model: str) -> float:
    """Seconds of a process that opens the model and ends."""
    began = perf_counter()
    subprocess.run([sys.executable, "-c", OPEN, model], check=True)
    return perf_counter() - began


def heard(model: str) -> float:
    """Seconds until a server answers."""
    began = perf_counter()
    with serving(model, "planned", []):
        return perf_counter() - began


def measured(model: str) -> dict[str, float]:
    """One round, in a cache folder that holds converted bases alone."""
    converted = cache_folder() / "gguf"
    with tempfile.TemporaryDirectory() as empty:
        if converted.exists():
            (Path(empty) / "gguf").symlink_to(converted)
        os.environ["FORESAY_CACHE"] = empty
        try:
            return {"opened": opened(model), "heard_without_costs": heard(model), "heard_again": heard(model)}
        finally:
            del os.environ["FORESAY_CACHE"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for model in given.models:
        rounds = [measured(model) for _ in range(given.rounds)]
        results[model] = {"rounds": rounds, "median": {k: statistics.median(r[k] for r in rounds) for k in rounds[0]}}
        print(f"{model}: {results[model]['median']}", file=sys.stderr)
    print(json.dumps({"seconds": results, "provenance": provenance(**vars(given))}, indent=1))


if __name__ == "__main__":
    main()
