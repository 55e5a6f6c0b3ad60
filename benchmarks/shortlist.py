"""Tokens per step by length of the shortlist (`DecodeConfig.shortlist`), on the model's embedded dev prompts.

Drafts are drawn from the tokens that the base's own head ranks first for each mask; 0 draws from all of them.

    python benchmarks/shortlist.py smollm2 --per-domain 8 --masks 3 > smollm2-shortlist.json
"""

import argparse
import json
import sys

from foresay.data.prompts import by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

SIZES = (0, 4, 16, 64, 256)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--per-domain", type=int, default=16)
    parser.add_argument("--masks", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    given = parser.parse_args()
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    tokenizer = model.require_tokenizer()
    found = embedded_prompts(tokenizer, "dev", given.per_domain, given.model)
    results = []
    for size in SIZES:
        config = DecodeConfig(
            layout="quadratic", masks=given.masks, max_new_tokens=given.max_new_tokens, shortlist=size
        )
        rates = {
            domain: tally(model.decode([prompt.ids for prompt in group], config)).tokens_per_step
            for domain, group in by_domain(found).items()
        }
        results.append({"shortlist": size, "tokens_per_step": rates})
        print(f"shortlist {size}: {rates}", file=sys.stderr)
    print(json.dumps({"results": results, "provenance": provenance(**vars(given))}, indent=1))


if __name__ == "__main__":
    main()
