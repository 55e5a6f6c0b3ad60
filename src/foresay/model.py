"""The front door: a base, its adapter and its tokenizer as one object that trains, saves, loads and generates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.generation.stopping_criteria import StoppingCriteriaList, StopStringCriteria
from transformers.generation.streamers import BaseStreamer

from foresay.data.asked import prompt_ids
from foresay.decoding.answers import Answer, choosing, settings, settings_of
from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.decoding.session import GenerationHooks
from foresay.decoding.steps import Step
from foresay.decoding.transformers_bridge import Bridge, refuse_withheld
from foresay.foundation.errors import ConfigError, PromptError
from foresay.foundation.machine import in_software
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import Fingerprints, fingerprint
from foresay.models.artefact.folder import as_trained
from foresay.models.artefact.publish import publication, publish
from foresay.models.base.device import device_for, dtype_name, placed
from foresay.models.base.load import adapter_folder, open_base, own_tokenizer
from foresay.models.base.quantization import quantization_of
from foresay.models.config import DTYPE, DType, Family, LoadConfig, LoadDType, MTPConfig
from foresay.models.drafting import DraftingModel
from foresay.models.families import build, dtype_of_family, family_of, fresh
from foresay.models.masks.model import MaskModel

if TYPE_CHECKING:
    from peft import PeftModel

DRAFTING = ("layout", "masks", "branches", "nodes", "shortlist", "compile", "graphs", "ignore_stop")
"""Fields of `DecodeConfig` that `generate` takes beside transformers' own arguments."""


@dataclass(slots=True)
class MultiTokenModel:
    """A pretrained model that can say several tokens at once.

    Make one with `from_base` (a fresh adapter, to be trained) or `from_pretrained` (a saved one).
    """

    core: DraftingModel
    tokenizer: PreTrainedTokenizerBase | None
    base_name: str
    provenance: dict[str, Any] = field(default_factory=dict)
    base_adapter: str = ""
    """Name of the user's LoRA on the base; empty when there is none, or it came without one."""
    _fingerprints: Fingerprints | None = field(default=None, init=False, repr=False)

    @classmethod
    def from_base(
        cls,
        base: "str | PreTrainedModel | PeftModel",
        config: Family | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: LoadDType | torch.dtype = DTYPE,
        seed: int = 0,
        loading: LoadConfig | None = None,
        *,
        device_map: Any = None,
    ) -> "MultiTokenModel":
        """A fresh adapter, or fresh heads, on `base`: a loaded causal LM, with a PEFT LoRA or without, or a name
        (`nano`, `smollm2`, folder, GGUF file, hub id), which `dtype` and `loading` say how to load, `device_map` on
        which one device. Heads are trained in float32, which `auto` then is.

        The base is frozen and put in eval mode. Raises BaseNotFound, UnsupportedBase, ConfigError, MissingPackage.
        """
        loading = placed(loading or LoadConfig(), device_map)
        guest, model = open_base(base, dtype_of_family(dtype_name(dtype), config), loading)
        tokenizer = tokenizer or own_tokenizer(base, guest)
        core = fresh(model, config or MTPConfig(), seed)
        core.packing.want(loading.pack_linears)
        return cls(core, tokenizer, guest.base, base_adapter=guest.adapter)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        base: "str | PreTrainedModel | PeftModel | None" = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: LoadDType | torch.dtype = DTYPE,
        loading: LoadConfig | None = None,
        revision: str | None = None,
        *,
        device_map: Any = None,
    ) -> "MultiTokenModel":
        """The model saved in `folder`, on the base it names or the one given.

        `folder` may be `smollm2`, `nano`, or a hub id, of which `revision` (commit, branch or tag) is taken.

        Base, LoRA of the user's own, tokenizer and chat template must be those it was trained on; a base quantised
        otherwise is warned of. Raises ArtefactError, BaseNotFound, ConfigError, MissingPackage.
        """
        place = adapter_folder(str(folder), revision)
        settings = artefact.read_settings(place)
        base = base or artefact.base_of(settings, place)
        loading = as_trained(placed(loading or LoadConfig(), device_map), settings)
        guest, model = open_base(base, dtype_name(dtype), loading, settings.base_adapter)
        tokenizer = tokenizer or own_tokenizer(base, guest)
        artefact.check_base(settings, fingerprint(model, tokenizer), place, guest.base)
        artefact.check_quantization(settings, quantization_of(model.config), place)
        core = build(model, settings.mtp)
        artefact.load_weights(place, core)
        core.added.to(core.added_dtype)
        core.acceptance = settings.acceptance
        core.packing.want(loading.pack_linears)
        return cls(core, tokenizer, guest.base, settings.provenance, guest.adapter)

    def save_pretrained(self, folder: str | Path, dtype: DType = "float32", overwrite: bool = False) -> None:
        """Write the artefact to `folder`, whole or not at all. Raises ArtefactError."""
        settings = artefact.Settings(
            family=family_of(self.core.config),
            mtp=self.core.config,
            base=self.base_name,
            fingerprints=self.fingerprints(),
            base_adapter=self.base_adapter,
            quantization=quantization_of(self.core.model.config),
            revision=getattr(self.core.model.config, "_commit_hash", None),
            acceptance=self.core.acceptance,
            provenance=self.provenance,
        )
        artefact.save(Path(folder), self.core, settings, getattr(torch, dtype), overwrite)

    def push_to_hub(
        self, repo: str, dtype: DType = "float32", licence: str = "", private: bool = False, token: str | None = None
    ) -> str:
        """Save and send the model to the repository `repo` (USER/NAME) on the hub, which is made where it is missing.

        `licence` is the hub's name of the adapter's licence. Returns the address of the commit. Raises ArtefactError,
        also where the base is a folder of this machine.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype)
            return publish(publication(Path(folder), repo, licence=licence), private, token)

    def close(self) -> None:
        """Leave the base as it was found: plain weights, and no hooks of an adapter. Decoding again opens it again."""
        self.core.detach_hooks()
        self.core.packing.unpack()

    def fingerprints(self) -> Fingerprints:
        """What the adapter belongs to; read from the weights once."""
        if self._fingerprints is None:
            self._fingerprints = fingerprint(self.core.model, self.tokenizer)
        return self._fingerprints

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base."""
        return self.core.base.dtype

    @property
    def dtype_name(self) -> str:
        """Dtype of the base, as settings and results name it (`float32`)."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Device of base and adapter."""
        return self.core.base.device

    def to(self, device: str | torch.device) -> "MultiTokenModel":
        """Move base and adapter to `device`, and return the model. Raises ConfigError for one that cannot be had."""
        if isinstance(device, torch.dtype):
            raise ConfigError(f"a dtype is chosen when a model is loaded; open it with dtype={device}")
        self.close()
        self.core.record_steps(False)
        self.core.to(device_for(str(device)))
        return self

    @property
    def described(self) -> dict[str, str]:
        """What a result was measured on, for its provenance: base, dtype and device."""
        return {"base": self.base_name, "dtype": self.dtype_name, "device": str(self.device)}

    @property
    def loaded(self) -> str:
        """In what dtype the base is loaded, and where, for people; and whether that is slow there."""
        slow = in_software(self.dtype_name, self.device)
        return "{base} in {dtype} on {device}".format_map(self.described) + (slow and f": {slow}")

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        *,
        config: DecodeConfig | None = None,
        streamer: BaseStreamer | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **arguments: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """transformers' `generate`, several tokens a step: the same arguments, the same result.

        `inputs` or `input_ids` (B, P) int64, padded on either side where `attention_mask` is 0, or instead a text to go
        on with, a chat, ids, or a list of these; greedy or sampled as `do_sample` and the generation config say.
        `config`, or any of its fields (`layout="linear"`, `masks=4`), says how to draft. Returns prompts with
        continuations (B, L) int64, padded on the right, or on request (`return_dict_in_generate`) an object with
        `scores` and `logits`, a float32 (B, V) for each generated position; rows that are finished there are certain of
        the padding token. Raises PromptError for what cannot be accelerated (beam search and the like), with the
        reason.
        """
        if inputs is not None and not isinstance(inputs, Tensor):
            inputs = self._padded(inputs, arguments)
        changes: dict[str, Any] = {name: arguments.pop(name) for name in DRAFTING if name in arguments}
        refuse_withheld(arguments)
        if config is not None and generation_config is None and not {"max_new_tokens", "max_length"} & arguments.keys():
            arguments["max_new_tokens"] = config.max_new_tokens
        stop_strings = self._stop_strings(generation_config, arguments)
        if stop_strings is not None:
            # On this path transformers withholds the tokenizer that its own stop strings need.
            rule = StopStringCriteria(tokenizer or self.require_tokenizer(), stop_strings)
            criteria = arguments.get("stopping_criteria") or ()
            arguments |= {"stop_strings": None, "stopping_criteria": StoppingCriteriaList([*criteria, rule])}
        bridge = self.bridge(settings(config, changes), streamer)
        with self.core.base.turn:  # threads wait for one another
            result: Tensor | GenerateDecoderOnlyOutput = self.core.model.generate(
                inputs, generation_config, custom_generate=bridge, **arguments
            )
        return result

    def bridge(self, config: DecodeConfig | None = None, streamer: BaseStreamer | None = None) -> Bridge:
        """A callable for `base.generate(..., custom_generate=...)` that drafts as `config` says.

        transformers withholds two things from such a callable. Its own `streamer`: give it here. The tokenizer that
        `stop_strings` needs: pass `stopping_criteria=[StopStringCriteria(tokenizer, strings)]`. How much is generated
        is for transformers' arguments to say.
        """
        return Bridge(self.core, config or DecodeConfig(), streamer)

    def __call__(self, *prepared: Any, **named: Any) -> Tensor | GenerateDecoderOnlyOutput:
        """`base.generate(..., custom_generate=this)`: what transformers calls, as `bridge()` with its defaults."""
        with self.core.base.turn:
            return self.bridge()(*prepared, **named)

    def answer(
        self,
        prompts: Any,
        config: DecodeConfig | None = None,
        watch: Callable[[int, Step], None] = lambda index, step: None,
        **changes: Any,
    ) -> Any:
        """Answers to user messages, greedy unless asked otherwise: an `Answer` to one prompt, a list to a list.

        `prompts` is a text (through the chat template, where there is one), a chat (messages), token ids, or a list of
        one of these. `changes` are fields of `DecodeConfig`, `SampleConfig` (`temperature`, `top_p`, ...) and
        `PenaltyConfig`; `watch(prompt index, step)` is called as steps are kept. Raises PromptError, ConfigError.

        >>> model.answer("What is 3 + 4?", max_new_tokens=32).text  # doctest: +SKIP
        """
        ids, one = prompt_ids(prompts, self.require_tokenizer, raw=False)
        decode, sample, penalties = settings_of(config, changes)
        hooks = GenerationHooks(chooser=choosing(sample, penalties, ids), watch=watch)
        with self.core.base.turn:
            said = generate(self.core, ids, decode, hooks)
        answers = [Answer.of(answer, self.tokenizer, len(prompt)) for answer, prompt in zip(said, ids)]
        return answers[0] if one else answers

    def _padded(self, inputs: Any, arguments: dict[str, Any]) -> Tensor:
        """Prompts (B, P) int64, padded on the left; their mask goes to `arguments`. Raises PromptError."""
        if "attention_mask" in arguments:
            raise PromptError("an attention_mask was given beside prompts that are no tensor; leave it out")
        prompts, _ = prompt_ids(inputs, self.require_tokenizer, raw=True)
        longest = max(map(len, prompts))
        arguments["attention_mask"] = torch.tensor(
            [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=self.device
        )
        return torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=self.device)

    @property
    def mask_model(self) -> MaskModel:
        """The core, where it is of the family `masks`; else a ConfigError says so."""
        if not isinstance(self.core, MaskModel):
            raise ConfigError(f"{self.base_name} drafts with heads, and this works on adapters; give one of them")
        return self.core

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, or a PromptError that says there is none."""
        if self.tokenizer is None:
            raise PromptError(f"{self.base_name} came without a tokenizer; give one, or use token ids")
        return self.tokenizer

    def _stop_strings(self, config: GenerationConfig | None, arguments: Mapping[str, Any]) -> str | list[str] | None:
        """Those of the arguments, else of the config, else of the base, as transformers would take them."""
        own: str | list[str] | None = self.core.model.generation_config.stop_strings
        given: str | list[str] | None = None if config is None else config.stop_strings
        wanted: str | list[str] | None = arguments.get("stop_strings", given or own)
        return wanted
