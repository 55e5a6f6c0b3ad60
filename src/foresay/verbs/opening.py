"""Options that several verbs share: which model is opened, and which prompts are decoded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from foresay.config import (
    DType,
    LoadConfig,
    require,
    require_at_least,
)
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt, Split, embedded_prompts, file_prompts

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a model is opened."""

    base: str = ""
    """Base to use instead of the one the model names: a folder, a hub id or nano."""
    dtype: DType = "float32"
    """Dtype of base and adapter."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    loading: LoadConfig = field(default_factory=LoadConfig)

    def open(self, folder: str, dtype: DType | None = None) -> MultiTokenModel:
        """The model in `folder`."""
        require(self.threads >= 0, f"threads is {self.threads}; give 1 or more, or 0 to leave it to torch")
        if self.threads:
            torch.set_num_threads(self.threads)
        return MultiTokenModel.from_pretrained(
            folder, self.base or None, dtype=dtype or self.dtype, loading=self.loading
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which prompts are decoded."""

    prompts: Path | None = None
    """File with a prompt a row (messages, prompt or text); without it, the embedded held-out prompts."""
    per_domain: int = 0
    """Embedded prompts of each domain; 0: a few, or many with --full."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "per_domain")

    def load(self, model: MultiTokenModel, per_domain: int, split: Split) -> list[Prompt]:
        """The prompts, at most `per_domain` of each embedded domain unless set."""
        tokenizer = model.require_tokenizer()
        if self.prompts is not None:
            return file_prompts(self.prompts, tokenizer)
        return embedded_prompts(tokenizer, split, self.per_domain or per_domain)
