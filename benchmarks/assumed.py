"""Write what `foresay advise` assumes where nothing is given: acceptance by domain of the embedded adapter.

python benchmarks/assumed.py benchmarks/results/acceptance/nano-tokens-per-step.json
"""

import json
from pathlib import Path

import tyro

from foresay.evaluation.speed.advise import ASSUMED, acceptance_of
from foresay.foundation.files import write_json

RESULTS = Path(__file__).with_name("results")


def main(results: tyro.conf.Positional[Path]) -> None:
    """Write the file that the package ships.

    Args:
        results: JSON of `foresay bench`, in `benchmarks/results/`.
    """
    found = acceptance_of(json.loads(results.read_text()))
    source = results.resolve().relative_to(RESULTS).as_posix()
    write_json(ASSUMED, {"made_from": source, "acceptance": {name: list(own) for name, own in found.items()}})


if __name__ == "__main__":
    tyro.cli(main)
