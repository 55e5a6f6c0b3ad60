"""The model card: README.md of the folder, from what was measured and nothing else."""

from collections.abc import Mapping
from typing import Any

from foresay.foundation.names import NAMED
from foresay.models.artefact.tensors import LORA, WEIGHTS
from foresay.models.base.hub import HUB_ID
from foresay.models.config import Family, HeadsConfig, MTPConfig


def hub_base(base: str) -> str:
    """The base's hub id; empty where `base` is a path, or a name of our own."""
    return base if HUB_ID.fullmatch(base) and base not in NAMED else ""


def card(
    config: Family, base: str, provenance: Mapping[str, Any], name: str = "FOLDER", licence: str = "", proof: str = ""
) -> str:
    """The model card, in Markdown.

    `base` is its name or hub id, `name` what the model is loaded by, `licence` the hub's name of one, and `proof` the
    sentence of a certificate. A base that is a path is called local: it is nobody else's.
    """
    where = base if hub_base(base) or base in NAMED else "a local base"
    if isinstance(config, MTPConfig):
        text = _masks(config, where)
    else:
        text = _heads(config, "The checkpoint in this folder" if base == "." else where)
    drafts = bool(config.drafts)
    return _head(base, licence, drafts) + text + (_use(name) + _measured(provenance, proof) if drafts else "") + _END


_END = "`foresay.json` holds settings, fingerprints of base, tokenizer and chat template, and how it was trained.\n"


def _head(base: str, licence: str, drafts: bool) -> str:
    """What the hub reads."""
    lines = [f"base_model: {base}", "base_model_relation: adapter"] if hub_base(base) else []
    lines += ["library_name: foresay", *([f"license: {licence}"] if licence else [])]
    lines += ["tags: [multi-token-prediction, speculative-decoding]"] if drafts else []
    return "\n".join(("---", *lines, "---\n"))


def _masks(mtp: MTPConfig, where: str) -> str:
    return f"""# A multi-token adapter for {where}

Made with foresay. It lets the frozen base draft up to {mtp.num_masks} tokens after every token and verify them in the
same forward, with the same greedy output. Gated LoRA of rank {mtp.rank}, sampler head `{mtp.sampler}`, mask embeddings
{"trained" if mtp.train_masks else "random and frozen"}.

The LoRA half (`{LORA}/`) is in PEFT's format, but **do not load it with plain PEFT to generate text**: there it
acts on every row and spoils the base. Here it acts on mask rows only, so the base's own output is untouched.

"""


def _heads(config: HeadsConfig, where: str) -> str:
    own = ", each with an unembedding of its own" if config.replicated else ""
    if not config.drafts:
        return f"""# A language model

Made with foresay. {where} is an ordinary causal language model with one output head, which any tool loads and serves.
It drafts nothing: `foresay train` teaches it to, `foresay pretrain --continued --heads 4` gives it more heads.

"""
    return f"""# A model with {config.heads} output heads

Made with foresay. {where} is an ordinary causal language model: a trunk and head 1, which any tool loads and serves.
`{WEIGHTS}` holds what the other heads have ({config.variant}{own}): they draft up to {config.drafts}
tokens after every token, and head 1 verifies them in the same forward, with the same greedy output.

"""


def _use(name: str) -> str:
    return f"""```python
from foresay import MultiTokenModel  # pip install foresay

model = MultiTokenModel.from_pretrained("{name}")
model.generate(**model.tokenizer("Once", return_tensors="pt"), max_new_tokens=64)  # as transformers' generate
```

```bash
foresay generate {name} "your prompt" --stats
foresay check {name}      # is the output the base's own?
foresay serve {name}      # OpenAI's interface
```

"""


def _measured(provenance: Mapping[str, Any], proof: str) -> str:
    """Tokens per step at the end of training, and the sentence of a certificate, where there are any."""
    settings = provenance.get("settings") or {}
    measured, tokens = settings.get("measured") or {}, (settings.get("train") or {}).get("eval_tokens")
    checked = f"Checked with `foresay check`: {proof}\n\n" if proof else ""
    if not measured.get("tokens_per_step"):
        return checked
    rows = "\n".join(f"| {domain or 'all'} | {rate:.2f} |" for domain, rate in measured["tokens_per_step"].items())
    return f"""| domain | tokens per step |
|---|---|
{rows}

Of {measured["prompts"]} prompts that were held out of the training data, answered greedily with at most {tokens} tokens
in the quadratic layout: kept tokens over forwards of the base.

{checked}"""
