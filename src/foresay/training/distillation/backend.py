"""What an engine is: token ids in, token ids out, by the rows they belong to."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.foundation.errors import require
from foresay.model import MultiTokenModel
from foresay.models.artefact.fingerprint import Fingerprints, tokenizer_fingerprints
from foresay.models.artefact.folder import base_of, read_settings
from foresay.models.base.device import device_for
from foresay.models.base.load import (
    BaseName,
    adapter_folder,
    base_folder,
    chosen_dtype,
    is_adapter,
    load_tokenizer,
    load_vocabulary,
)
from foresay.models.config import DTYPE, LoadConfig, LoadDType, MTPConfig
from foresay.training.config import EngineConfig


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt."""

    number: int
    """Row of the data: a row's draws depend on it, not on its place in a batch."""
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer."""

    tokens: list[int]
    """Stop token included, where there is one."""
    ended: str
    """`stop` or `length`."""


@dataclass(frozen=True)
class Task:
    """What every engine is asked for."""

    model: str
    """A base (folder, GGUF file, hub id, smollm2 or nano) or a foresay model."""
    dtype: LoadDType = DTYPE
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    loading: LoadConfig = field(default_factory=LoadConfig)
    batch_size: int = EngineConfig().batch_size
    base: str = ""
    """Base of the foresay model instead of the one that it names; empty: that one."""

    @property
    def adapted(self) -> bool:
        """The model is a foresay model, no bare base."""
        return is_adapter(self.model)

    @cached_property
    def guest(self) -> BaseName:
        """The base that answers, and the user's LoRA on it."""
        if not self.adapted:
            require(not self.base, f"{self.model} is no foresay model, so it has no other base; leave out --base")
            return BaseName.find(self.model, self.loading.base_adapter, self.loading.gguf_file)
        settings = read_settings(adapter_folder(self.model))
        base = self.base or base_of(settings, self.model)
        return BaseName(base, self.loading.base_adapter or settings.base_adapter)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the base."""
        return load_tokenizer(self.guest.base, self.guest.adapter)

    @cached_property
    def context(self) -> int:
        """Context of the base, in tokens."""
        config = AutoConfig.from_pretrained(base_folder(self.guest.base))
        return int(config.get_text_config().max_position_embeddings)

    @cached_property
    def vocabulary(self) -> int:
        """Rows of the base's embeddings."""
        return load_vocabulary(self.guest.base)

    def settled(self, device: str = "") -> "Task":
        """The task with the dtype that `auto` means on `device` (empty: this process's): what answers depend on."""
        return replace(self, dtype=chosen_dtype(self.guest.base, self.dtype, device or device_for(self.loading.device)))

    def open(self) -> MultiTokenModel:
        """The model, loaded in this process."""
        if self.adapted:
            return MultiTokenModel.from_pretrained(
                self.model, self.base or None, dtype=self.dtype, loading=self.loading
            )
        unused = MTPConfig(num_masks=1, rank=1)
        return MultiTokenModel.from_base(self.model, unused, dtype=self.dtype, loading=self.loading)

    @property
    def drafting(self) -> DecodeConfig:
        """How `open()` decodes: a bare base plainly, as nobody taught it to draft."""
        return self.decode if self.adapted else replace(self.decode, layout="plain", masks=0)

    def identity(self, fingerprints: Fingerprints | None = None) -> dict[str, Any]:
        """Whatever could change an answer, ready for JSON; without fingerprints, those of the tokenizer."""
        return {
            "model": self.guest.base,
            "base_adapter": self.guest.adapter,
            "quantize": self.loading.quantize,
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "fingerprints": asdict(fingerprints or tokenizer_fingerprints(self.tokenizer)),
            **asdict(self.drafting),
            **asdict(self.sample),
        }


class AnswerBackend(ABC):
    """Answers prompts."""

    tokenizer: PreTrainedTokenizerBase
    context: int
    """Tokens of prompt and answer together, at most."""
    vocabulary: int
    """Rows of the base's embeddings: token ids below it are known."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Who answers, and how, ready for JSON: a folder of answers is gone on with by the same alone."""

    @abstractmethod
    def answer(self, prompts: Sequence[PromptRow]) -> Iterator[dict[int, Answer]]:
        """The answers by their rows, some at a time as they are ready; prompts are shorter than the context."""


def groups(prompts: Sequence[PromptRow], size: int) -> Iterator[list[PromptRow]]:
    """Prompts of like length together: little padding, and the same batches at every start."""
    order = sorted(prompts, key=lambda asked: (len(asked.ids), asked.number))
    for start in range(0, len(order), size):
        yield order[start : start + size]
