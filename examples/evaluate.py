"""Tokens a step of an adapter by domain, on held-out prompts; then a command for tokens a second.

python examples/evaluate.py [MODEL]
"""

import sys

from foresay import EvalConfig, MultiTokenModel, evaluate

name = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
model = MultiTokenModel.from_pretrained(name)
found = evaluate(model, config=EvalConfig(masks=(2,), paper_steps=16, max_new_tokens=32))
for row in found.domains:
    kept = ", ".join(f"{entry.unconditional:.0%}" for entry in row.acceptance)
    print(f"{row.domain:10} {row.whole.value:.2f} tokens a step of {row.prompts} prompts; drafts kept: {kept}")
print(f"seconds, beside transformers and plain decoding: foresay bench {name}")
