"""Write what `foresay advise` assumes where nothing is given: acceptance by domain of the embedded adapter.

python benchmarks/assumed.py benchmarks/results/nano-tokens-per-step.json
"""

import json
from pathlib import Path

import tyro

from foresay.evaluation.speed.advise import ASSUMED, acceptance_of
from foresay.foundation.files import write_json


def main(results: tyro.conf.Positional[Path]) -> None:
    """Write the file that the package ships.

    Args:
        results: JSON of `foresay bench`.
    """
    found = acceptance_of(json.loads(results.read_text()))
    write_json(ASSUMED, {"made_from": results.name, "acceptance": {name: list(own) for name, own in found.items()}})


if __name__ == "__main__":
    tyro.cli(main)
