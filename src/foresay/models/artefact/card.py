"""The model card: README.md of the folder."""

from foresay.models.artefact.tensors import PEFT_WEIGHTS, WEIGHTS
from foresay.models.config import Family, HeadsConfig, MTPConfig


def card(config: Family, base: str) -> str:
    """The model card, in Markdown."""
    return _heads_card(config, base) if isinstance(config, HeadsConfig) else _masks_card(config, base)


def _masks_card(mtp: MTPConfig, base: str) -> str:
    return f"""---
base_model: {base}
library_name: foresay
tags: [multi-token-prediction, speculative-decoding]
---
# A multi-token adapter for {base}

Made with foresay. It lets the frozen base draft up to {mtp.num_masks} tokens after every token and verify them in the
same forward, with the same greedy output. Gated LoRA of rank {mtp.rank}, sampler head `{mtp.sampler}`, mask embeddings
{"trained" if mtp.train_masks else "random and frozen"}.

    foresay generate FOLDER "your prompt" --stats
    foresay check FOLDER
    foresay bench FOLDER

The LoRA half (`{PEFT_WEIGHTS}`) is in PEFT's format, but **do not load it with plain PEFT to generate text**: there it
acts on every row and spoils the base. Here it acts on mask rows only, so the base's own output is untouched.

`foresay.json` holds settings, fingerprints of base, tokenizer and chat template, and how it was trained.
"""


def _heads_card(config: HeadsConfig, base: str) -> str:
    where = "The checkpoint in this folder" if base == "." else base
    own = ", each with an unembedding of its own" if config.replicated else ""
    if not config.drafts:
        return f"""---
library_name: foresay
---
# A language model

Made with foresay. {where} is an ordinary causal language model with one output head, which any tool loads and serves.
It drafts nothing: `foresay train` teaches it to, `foresay pretrain --continued --heads 4` gives it more heads.

`foresay.json` holds settings, fingerprints of tokenizer and chat template, and how it was trained.
"""
    return f"""---
library_name: foresay
tags: [multi-token-prediction, speculative-decoding]
---
# A model with {config.heads} output heads

Made with foresay. {where} is an ordinary causal language model: a trunk and head 1, which any tool loads and serves.
`{WEIGHTS}` holds what the other heads have ({config.variant}{own}): they draft up to {config.drafts}
tokens after every token, and head 1 verifies them in the same forward, with the same greedy output.

    foresay generate FOLDER "your prompt" --stats
    foresay check FOLDER
    foresay bench FOLDER

`foresay.json` holds settings, fingerprints of base, tokenizer and chat template, and how it was trained.
"""
