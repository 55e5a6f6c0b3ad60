"""Models: the base as a guest, and everything that makes it say several tokens: masks, gate, LoRA, sampler, heads."""
