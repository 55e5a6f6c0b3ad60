"""The family `masks`: mask embeddings, gated LoRA and sampler head (paper A)."""
