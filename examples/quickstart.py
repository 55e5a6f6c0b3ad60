"""Answer a question in fewer steps, and see that the text is the base's own.

python examples/quickstart.py            # smollm2; `nano` for a look of five seconds
"""

import sys

from foresay import MultiTokenModel

model = MultiTokenModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "smollm2")

answer = model.answer("Why is the sky blue?", max_new_tokens=64, layout="quadratic")
plain = model.answer("Why is the sky blue?", max_new_tokens=64, layout="plain")

print(answer.text)
print(f"{len(answer.tokens)} tokens in {len(answer.steps)} steps, plain decoding takes {len(plain.steps)}")
print("the same text:", answer.text == plain.text)
