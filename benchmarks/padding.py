"""Share of a batch's rows that are padding: sequences as they come, of like length together, and packed.

python benchmarks/padding.py DATA ... > padding.json
"""

import argparse
import json
from itertools import islice

import torch

from foresay.data.corpus import read
from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.source import Source
from foresay.foundation.names import NANO
from foresay.foundation.provenance import provenance
from foresay.models.base.load import load_tokenizer
from foresay.training.config import TrainConfig
from foresay.training.objectives.batches import Batch, batches

BATCHES = 200


def padded(seen: list[Batch]) -> float:
    """Padding rows over all rows; padding is where a document of one row without loss stands."""
    rows = sum(batch.ids.numel() for batch in seen)
    tokens = sum(tokens_of(batch) for batch in seen)
    return 1 - tokens / rows


def tokens_of(batch: Batch) -> int:
    """Rows that hold a token: every document has one that carries loss, padding has none."""
    starts = batch.documents.starts
    carrying = torch.zeros(starts.shape, dtype=torch.int64).scatter_add_(1, starts, batch.carries.long())
    return int((carrying.gather(1, starts) > 0).sum())


def unsorted(examples: list[Example], config: TrainConfig) -> float:
    """What padding to the longest of the batch would cost in the order of the data."""
    groups = [examples[at : at + config.sequences] for at in range(0, len(examples), config.sequences)][:BATCHES]
    rows = sum(len(group) * max(len(one.ids) for one in group) for group in groups)
    return 1 - sum(len(one.ids) for group in groups for one in group) / rows


def main() -> None:
    """Count and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--max-length", type=int, default=TrainConfig().max_length)
    given = parser.parse_args()
    encoder = Encoder(load_tokenizer(NANO), given.max_length)
    results = {}
    for path in given.data:
        examples = list(read(Source.parse(path, ()), encoder, False).examples)
        plain, packed = (TrainConfig(max_length=given.max_length, pack=pack) for pack in (False, True))
        results[path.rsplit("/", 1)[-1]] = {
            "examples": len(examples),
            "as they come": unsorted(examples, plain),
            "of like length": padded(list(islice(batches(examples, plain, torch.device("cpu")), BATCHES))),
            "packed": padded(list(islice(batches(examples, packed, torch.device("cpu")), BATCHES))),
        }
    settings = {"max_length": given.max_length, "batches": BATCHES, "sequences": TrainConfig().sequences}
    print(json.dumps({"padding": results, "provenance": provenance(**settings)}, indent=1))


if __name__ == "__main__":
    main()
