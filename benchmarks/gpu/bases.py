"""What the stages measure on: the models, and where figures come from."""

from pathlib import Path
from typing import Any

import torch
from card import described
from job import Job, Record, Skipped
from transformers import AutoModelForCausalLM, LlamaConfig

import foresay
from foresay import MTPConfig, MultiTokenModel
from foresay.foundation.provenance import provenance as facts_of_run

LLAMA_8B, LLAMA_1B = "8B", "1B"
SHAPES: dict[str, dict[str, Any]] = {
    LLAMA_8B: {  # Llama-3.1-8B
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    LLAMA_1B: {  # Llama-3.2-1B
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
}
VOCABULARY, CONTEXT = 128_256, 16_384
TOY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Stands in for a shape in a dry run."""
RANDOM_RANK, REAL_RANK = 64, 16
"""Of adapters on random weights, the default; of those on the real base, whose folder is to be small."""


def random_llama(job: Job, shape: str) -> MultiTokenModel:
    """A Llama of this shape with random weights and a fresh adapter, ready to decode: a step costs the same as any."""
    told = {**SHAPES[shape], **TOY} if job.dry_run else SHAPES[shape]
    vocabulary = 512 if job.dry_run else VOCABULARY
    config = LlamaConfig(**told, vocab_size=vocabulary, max_position_embeddings=CONTEXT)
    torch.manual_seed(0)
    with torch.device(job.device):
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, job.dtype))
    return ready(MultiTokenModel.from_base(base, MTPConfig(rank=RANDOM_RANK)))


def ready(model: MultiTokenModel) -> MultiTokenModel:
    """The adapter in the dtype in which it decodes, as when it is loaded."""
    model.added.to(model.added_dtype)
    return model


def real_base(job: Job) -> str:
    """The real base. Raises Skipped where there is none; a dry run takes the embedded one."""
    if job.dry_run:
        return "nano"
    if not job.base:
        raise Skipped("no real base was given; give SmolLM2's file with --base")
    return job.base


def trained_name(job: Job) -> str:
    """The model that is measured with text: the one given, else the one just trained, else the embedded toy."""
    return job.adapter or (str(job.trained) if (job.trained / "foresay.json").is_file() else "nano")


def trained(job: Job, record: Record) -> MultiTokenModel:
    """That model, loaded."""
    name = trained_name(job)
    if name == "nano" and not job.dry_run:
        record.leave_out("the real base", "no adapter was given or trained; the figures are of the embedded toy")
    record.provenance["model"] = name
    return MultiTokenModel.from_pretrained(name, dtype=job.dtype)


def provenance(job: Job, stage: str) -> dict[str, Any]:
    """Where the figures come from."""
    settings = {"stage": stage, "dtype": job.dtype, "cap": job.caps.get(stage), "dry_run": job.dry_run}
    facts = facts_of_run(**settings, base=Path(job.base).name, adapter=Path(job.adapter).name)
    return facts | {"commit": job.commit or facts["commit"], "foresay": foresay.__version__, "card": described()}
