"""The front door: a base, its adapter and its tokenizer as one object that trains, saves, loads and generates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foresay import artefact
from foresay.config import DecodeConfig, DType, MTPConfig
from foresay.decoding.generate import Generation, Step, generate
from foresay.errors import PromptError
from foresay.modelling.load import EMBEDDED, NANO, load_base, load_tokenizer
from foresay.modelling.model import MaskModel
from foresay.prompts import encode


@dataclass(slots=True)
class MultiTokenModel:
    """A pretrained model that can say several tokens at once.

    Make one with `from_base` (a fresh adapter, to be trained) or `from_pretrained` (a saved one).
    """

    core: MaskModel
    tokenizer: PreTrainedTokenizerBase | None
    base_name: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_base(
        cls,
        base: str | PreTrainedModel,
        config: MTPConfig | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: DType = "float32",
        seed: int = 0,
    ) -> "MultiTokenModel":
        """A fresh adapter on `base`: a loaded causal LM, or a name (`nano`, a folder, a hub id).

        The base is frozen and put in eval mode. Raises BaseNotFound or UnsupportedBase.
        """
        model, tokenizer = _open_base(base, tokenizer, dtype)
        return cls(MaskModel.from_base(model, config, seed), tokenizer, _name(base, model))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        base: str | PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: DType = "float32",
    ) -> "MultiTokenModel":
        """The model saved in `folder` (`nano`: the embedded one), on the base it names or the one given.

        Base, tokenizer and chat template must be those it was trained on. Raises ArtefactError, BaseNotFound.
        """
        place = EMBEDDED / NANO / "adapter" if folder == NANO else Path(folder)
        settings = artefact.read_settings(place)
        model, tokenizer = _open_base(base or settings.base, tokenizer, dtype)
        name = _name(base or settings.base, model)
        artefact.check_base(settings, artefact.fingerprint(model, tokenizer), place, name)
        core = MaskModel.from_base(model, settings.mtp)
        artefact.load_weights(place, core)
        core.adapter.to(model.dtype)
        return cls(core, tokenizer, name, settings.provenance)

    def save_pretrained(self, folder: str | Path, dtype: DType = "float32", overwrite: bool = False) -> None:
        """Write the artefact to `folder`, whole or not at all. Raises ArtefactError."""
        settings = artefact.Settings(
            mtp=self.core.config,
            base=self.base_name,
            fingerprints=artefact.fingerprint(self.core.model, self.tokenizer),
            revision=getattr(self.core.model.config, "_commit_hash", None),
            provenance=self.provenance,
        )
        card = artefact.card(settings)
        artefact.save(Path(folder), self.core, settings, card, getattr(torch, dtype), overwrite)

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        config: DecodeConfig | None = None,
        **changes: Any,
    ) -> Tensor:
        """Greedy continuations as transformers' `generate` returns them: (B, L) int64, prompts first, padded behind.

        `input_ids` (B, P) int64, padded on either side where `attention_mask` (B, P) is 0; `changes` are fields of
        `DecodeConfig`, as in `max_new_tokens=64`. Raises PromptError, ConfigError.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        prompts = [ids[seen.bool()].tolist() for ids, seen in zip(input_ids, mask)]
        said = generate(self.core, prompts, settings(config, changes))
        longest = max(len(generation.tokens) for generation in said)
        padded = [[*generation.tokens, *[self._pad] * (longest - len(generation.tokens))] for generation in said]
        return torch.cat((input_ids, torch.tensor(padded, device=input_ids.device)), dim=1)

    def answer(
        self,
        prompts: Sequence[str],
        config: DecodeConfig | None = None,
        watch: Callable[[int, Step], None] | None = None,
        **changes: Any,
    ) -> list[Generation]:
        """Greedy answers to user messages (through the chat template, where there is one), with every step.

        `watch(prompt index, step)` is called as steps are kept. Raises PromptError, ConfigError.
        """
        tokenizer = self.require_tokenizer()
        return generate(self.core, [encode(tokenizer, prompt) for prompt in prompts], settings(config, changes), watch)

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, or a PromptError that says there is none."""
        if self.tokenizer is None:
            raise PromptError(f"{self.base_name} came without a tokenizer; give one, or use token ids")
        return self.tokenizer

    @property
    def _pad(self) -> int:
        pad = self.core.model.generation_config.pad_token_id
        return int(pad) if pad is not None else next(iter(self.core.base.stop_tokens), 0)


def settings(config: DecodeConfig | None, changes: dict[str, Any]) -> DecodeConfig:
    """`config` (the defaults when None) with some fields changed; an unknown one is a PromptError."""
    unknown = sorted(changes.keys() - DecodeConfig.__dataclass_fields__.keys())
    if unknown:
        known = ", ".join(DecodeConfig.__dataclass_fields__)
        raise PromptError(f"generate got unknown setting {unknown[0]!r}; known are {known}")
    return replace(config or DecodeConfig(), **changes)


def _open_base(
    base: str | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: DType
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    if isinstance(base, str):
        return load_base(base, dtype), tokenizer or load_tokenizer(base)
    return base, tokenizer


def _name(base: str | PreTrainedModel, model: PreTrainedModel) -> str:
    """How the artefact names its base: folders by their whole path, so that it loads from anywhere."""
    name = base if isinstance(base, str) else model.name_or_path
    return str(Path(name).resolve()) if Path(name).is_dir() and name != NANO else name
