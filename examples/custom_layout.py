"""A layout of your own: masks after the newest token and after the last draft. The text stays the base's.

python examples/custom_layout.py            # smollm2; `nano` for a look of five seconds
"""

import sys

from foresay import MultiTokenModel
from foresay.models.layout.layout import Layout, add_layout


def ends(real: int, masks: int) -> Layout:
    """Fewer rows than `quadratic`; a step without drafts only where some of the drafts stayed and others did not."""
    return Layout.training(real, anchors=(0, real - 1), masks=masks)


add_layout("ends", ends)
model = MultiTokenModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
question = "What is 12 times 11?"
plain = model.answer(question, max_new_tokens=48, layout="plain")
for layout in ("linear", "ends", "quadratic"):
    answer = model.answer(question, max_new_tokens=48, layout=layout, masks=3)
    print(f"{layout:10} {answer.tokens_per_step:.2f} tokens a step, the same text: {answer.text == plain.text}")
