"""Tokens per step by length of the shortlist (`DecodeConfig.shortlist`), on the embedded model's dev prompts.

python benchmarks/shortlist.py > shortlist.json
"""

import json

from foresay.data.prompts import by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

SIZES = (0, 4, 16, 64, 256)
MASKS, PROMPTS, TOKENS = 4, 16, 64


def main() -> None:
    """Measure and print JSON."""
    model = MultiTokenModel.from_pretrained("nano")
    domains = by_domain(embedded_prompts(model.require_tokenizer(), "dev", PROMPTS))
    results = []
    for size in SIZES:
        config = DecodeConfig(layout="quadratic", masks=MASKS, max_new_tokens=TOKENS, shortlist=size)
        rates = {
            domain: tally(model.decode([p.ids for p in group], config)).tokens_per_step
            for domain, group in domains.items()
        }
        results.append({"shortlist": size, "tokens_per_step": rates})
    settings = {"masks": MASKS, "prompts": PROMPTS, "max_new_tokens": TOKENS}
    print(json.dumps({"results": results, "provenance": provenance(**settings)}, indent=1))


if __name__ == "__main__":
    main()
