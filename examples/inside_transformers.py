"""Keep your own transformers code: a callable for `generate(..., custom_generate=...)` is all that changes.

python examples/inside_transformers.py
"""

import sys

from transformers import TextStreamer

from foresay import DecodeConfig, MultiTokenModel

model = MultiTokenModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
tokenizer = model.tokenizer
inputs = tokenizer("Once upon a time", return_tensors="pt")

# transformers' own arguments, and a streamer.
streamer = TextStreamer(tokenizer)
model.generate(**inputs, do_sample=False, max_new_tokens=32, streamer=streamer, config=DecodeConfig(layout="linear"))

# Sampling too: by the base's own distribution, a function of the seed.
said = model.generate(**inputs, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=32)
print(tokenizer.decode(said[0]))
