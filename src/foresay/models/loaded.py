"""A loaded model: base, adapter or heads, and tokenizer, with what can be asked of them and done to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from foresay.foundation.errors import ConfigError, PromptError
from foresay.foundation.machine import in_software
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import Fingerprints, fingerprint
from foresay.models.base.device import device_for
from foresay.models.base.model import Base
from foresay.models.config import Family
from foresay.models.drafting import DraftingModel
from foresay.models.families import build, family_of
from foresay.models.heads.model import HeadsModel
from foresay.models.masks.model import MaskModel


@dataclass(slots=True)
class LoadedModel:
    """What is known of a model that is open; `MultiTokenModel` also generates with it."""

    _core: DraftingModel
    tokenizer: PreTrainedTokenizerBase | None
    base_name: str
    provenance: dict[str, Any] = field(default_factory=dict)
    base_adapter: str = ""
    """Name of the user's LoRA on the base; empty when there is none, or it came without one."""
    _fingerprints: Fingerprints | None = field(default=None, init=False, repr=False)

    @property
    def base(self) -> Base:
        """The pretrained model and its limits: `base.model` is transformers' own, `base.context` its longest text."""
        return self._core.base

    @property
    def config(self) -> Family:
        """Settings of the family, as saved with the model: `MTPConfig` or `HeadsConfig`."""
        return self._core.config

    @property
    def family(self) -> str:
        """`masks` (an adapter) or `heads`."""
        return family_of(self.config)

    @property
    def drafts(self) -> int:
        """Most tokens that are drafted after one: masks of a block, or heads beside the first."""
        return self.config.drafts

    @property
    def added(self) -> nn.Module:
        """What the model has beside its base: the adapter, or further heads."""
        return self._core.added

    @property
    def added_dtype(self) -> torch.dtype:
        """Dtype in which what is beside the base decodes."""
        return self._core.added_dtype

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Share of steps that kept the j-th draft, as measured while training; empty when nobody did.

        It is saved with the model, and `planned` begins with it.
        """
        return self._core.acceptance

    @acceptance.setter
    def acceptance(self, shares: Sequence[float]) -> None:
        self._core.acceptance = tuple(shares)

    @property
    def mask_model(self) -> MaskModel:
        """The module that drafts with masks, as training takes it. Raises ConfigError for heads."""
        if not isinstance(self._core, MaskModel):
            raise ConfigError(f"{self.base_name} drafts with heads, and this works on adapters; give one of them")
        return self._core

    @property
    def heads_model(self) -> HeadsModel:
        """The module that drafts with heads, as training takes it. Raises ConfigError for an adapter."""
        if not isinstance(self._core, HeadsModel):
            raise ConfigError(f"{self.base_name} drafts with masks, and this works on heads; give a model with heads")
        return self._core

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base."""
        return self.base.dtype

    @property
    def dtype_name(self) -> str:
        """Dtype of the base, as settings and results name it (`float32`)."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Device of base and adapter."""
        return self.base.device

    def to(self, device: str | torch.device) -> Self:
        """Move base and adapter to `device`, and return the model. Raises ConfigError for one that cannot be had."""
        if isinstance(device, torch.dtype):
            raise ConfigError(f"a dtype is chosen when a model is loaded; open it with dtype={device}")
        self.close()
        self._core.record_steps(False)
        self._core.to(device_for(str(device)))
        return self

    @property
    def described(self) -> dict[str, str]:
        """What a result was measured on, for its provenance: base, dtype and device."""
        return {"base": self.base_name, "dtype": self.dtype_name, "device": str(self.base.device)}

    @property
    def loaded(self) -> str:
        """In what dtype the base is loaded, and where, for people; and whether that is slow there."""
        slow = in_software(self.dtype_name, self.base.device)
        return "{base} in {dtype} on {device}".format_map(self.described) + (slow and f": {slow}")

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, or a PromptError that says there is none."""
        if self.tokenizer is None:
            raise PromptError(f"{self.base_name} came without a tokenizer; give one, or use token ids")
        return self.tokenizer

    def fingerprints(self) -> Fingerprints:
        """What the adapter belongs to; read from the weights once."""
        if self._fingerprints is None:
            self._fingerprints = fingerprint(self.base.model, self.tokenizer)
        return self._fingerprints

    @torch.no_grad()
    def base_logits(self, ids: Sequence[int]) -> Tensor:
        """The base's own logits after each of `ids`: (L, V) in its dtype, from one plain forward."""
        logits: Tensor = self.base.model(torch.tensor([ids], device=self.base.device), use_cache=False).logits
        return logits[0]

    def load_weights(self, folder: str | Path) -> None:
        """Fill adapter or heads with what was saved in `folder`, in the dtype that they have. Raises ArtefactError."""
        artefact.load_weights(Path(folder), self._core)

    def attach_hooks(self) -> None:
        """Attach the adapter to the base: its gate is closed outside of decoding, where the base answers as before."""
        self._core.attach_hooks()

    def detach_hooks(self) -> None:
        """Detach the adapter from the base."""
        self._core.detach_hooks()

    def close(self) -> None:
        """Leave the base as it was found: plain weights, and no hooks of an adapter. Decoding again opens it again."""
        self.detach_hooks()
        self._core.packing.unpack()

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled and copied: the weights, and nothing that decoding keeps (packed weights, costs)."""
        self.close()
        core = self._core
        held = (core.model, core.config, core.added.state_dict(), core.acceptance, core.packing.wanted)
        return _restored, (type(self), held, self.tokenizer, self.base_name, self.provenance, self.base_adapter)


def _restored(kind: type[LoadedModel], held: tuple[Any, ...], *about: Any) -> LoadedModel:
    """The model that `LoadedModel.__reduce__` took apart."""
    base, config, added, acceptance, packed = held
    core = build(base, config)
    core.added.to(core.added_dtype).load_state_dict(added)
    core.acceptance = acceptance
    core.packing.want(packed)
    return kind(core, *about)
