"""Tokens a second and tokens a step of an adapter, beside transformers and plain decoding, on held-out prompts.

python examples/evaluate.py [MODEL]
"""

import sys

from foresay import BenchConfig, MultiTokenModel
from foresay.data.prompts import embedded_prompts
from foresay.evaluation.speed.bench import bench

name = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
model = MultiTokenModel.from_pretrained(name)
prompts = embedded_prompts(model.tokenizer, "test", 1, name)[:2]  # of math and code

config = BenchConfig(layouts=("quadratic",), lookup_tokens=0, max_new_tokens=24, repeats=1)
for result in bench(model, prompts, config).results:
    print(
        f"{result.domain:10} {result.label:14} {result.tokens_per_second:6.1f} tokens/s, "
        f"{result.tokens_per_step:.2f} a step, {result.identical} of {result.prompts} identical"
    )
