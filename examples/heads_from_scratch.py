"""A model with four output heads from random weights (the second paper), on bytes of texts; it decodes with them.

python examples/heads_from_scratch.py TEXTS.txt OUT [STEPS]
"""

import json
import sys
from pathlib import Path

from foresay import HeadsConfig, MultiTokenModel, PretrainConfig, PretrainRecipe, pretrain

texts, out, steps = sys.argv[1], Path(sys.argv[2]), int((*sys.argv, "300")[3])
shape = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
config = out.with_suffix(".json")
config.write_text(json.dumps(shape))

settings = PretrainConfig(steps=steps, warmup_steps=max(steps // 10, 1), length=64, batch_tokens=512)
recipe = PretrainRecipe(str(config), (texts,), out, tokenizer="bytes", heads=HeadsConfig(heads=4), train=settings)
result = pretrain(recipe)
print("bits a byte:", result.last.bits_per_byte)

model = MultiTokenModel.from_pretrained(out)
ids = model.tokenizer("Once upon a time", return_tensors="pt").input_ids
print(model.tokenizer.decode(model.generate(ids, max_new_tokens=24, do_sample=False)[0]))
