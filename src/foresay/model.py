"""The front door: a base, its adapter and its tokenizer as one object that trains, saves, loads and generates."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.generation.streamers import BaseStreamer

from foresay.data.asked import padded, prompt_ids
from foresay.decoding.answers import Answer, choosing, settings_of, with_changes
from foresay.decoding.config import DecodeConfig, QueueConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import check_prompts, generate, prepare
from foresay.decoding.kv_memory import kv_bytes
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planners import Planners
from foresay.decoding.planning.planner import Planner
from foresay.decoding.sampling.grammar import Grammar, grammar_of
from foresay.decoding.sampling.per_request import Limits
from foresay.decoding.step_costs import (
    Curve,
    Watch,
    calibrate,
    curve_for,
    known_acceptance,
    planner_for,
    rounded,
    unwatched,
)
from foresay.decoding.steps import Generation, Step
from foresay.decoding.transformers_bridge import Bridge, refuse_withheld, with_stop_strings
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import fingerprint
from foresay.models.artefact.folder import as_trained
from foresay.models.artefact.publish import publication, publish
from foresay.models.base.device import AnyDType, dtype_name, placed, torch_dtype
from foresay.models.base.load import adapter_folder, open_base, own_tokenizer
from foresay.models.base.quantization import quantization_of
from foresay.models.config import DTYPE, Family, LoadConfig, LoadDType, MTPConfig
from foresay.models.families import build, dtype_of_family, fresh
from foresay.models.loaded import LoadedModel

if TYPE_CHECKING:
    from peft import PeftModel

DRAFTING = ("layout", "masks", "branches", "nodes", "shortlist", "prompt_lookup", "compile", "graphs", "ignore_stop")
"""Fields of `DecodeConfig` that `generate` takes beside transformers' own arguments."""


@dataclass(slots=True)
class MultiTokenModel(LoadedModel):
    """A pretrained model that can say several tokens at once.

    Make one with `from_base` (a fresh adapter, to be trained) or `from_pretrained` (a saved one).

        model = MultiTokenModel.from_pretrained("nano")
        said = model.answer("Tell me a story.", max_new_tokens=64)
        print(said.text, said.tokens_per_step)
    """

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
        which one device. Heads are trained in float32, which `auto` then is. `config` says what is put on it
        (`MTPConfig()` when None), `seed` what its weights are drawn with.

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

    def save_pretrained(self, folder: str | Path, dtype: AnyDType = "float32", overwrite: bool = False) -> None:
        """Write the artefact to `folder`, whole or not at all. Raises ArtefactError, ConfigError."""
        settings = artefact.Settings(
            family=self.family,
            mtp=self.config,
            base=self.base_name,
            fingerprints=self.fingerprints(),
            base_adapter=self.base_adapter,
            quantization=quantization_of(self.base.model.config),
            revision=getattr(self.base.model.config, "_commit_hash", None),
            acceptance=self.acceptance,
            provenance=self.provenance,
        )
        artefact.save(Path(folder), self._core, settings, torch_dtype(dtype), overwrite)

    def push_to_hub(
        self, repo: str, dtype: AnyDType = "float32", licence: str = "", private: bool = False, token: str | None = None
    ) -> str:
        """Save and send the model to the repository `repo` (USER/NAME) on the hub, which is made where it is missing.

        `licence` is the hub's name of the adapter's licence. Returns the address of the commit. Raises ArtefactError,
        also where the base is a folder of this machine.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype)
            return publish(publication(Path(folder), repo, licence=licence), private, token)

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        *,
        config: DecodeConfig | None = None,
        streamer: BaseStreamer | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        structured: Any = None,
        **arguments: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """transformers' `generate`, several tokens a step: the same arguments, the same result.

        `inputs` or `input_ids` (B, P) int64, padded on either side where `attention_mask` is 0, or instead a text to go
        on with, a chat, ids, or a list of these; greedy or sampled as `do_sample` and the generation config say.
        `config`, or any of its fields (`layout="linear"`, `masks=4`), says how to draft; `structured` what form the
        continuation has: a JSON schema, a pydantic model, or `StructuredOutputs`. Returns prompts with
        continuations (B, L) int64, padded on the right, or on request (`return_dict_in_generate`) an object with
        `scores` and `logits`, a float32 (B, V) for each generated position; rows that are finished there are certain of
        the padding token. Raises PromptError for what cannot be accelerated (beam search and the like), with the
        reason.
        """
        if inputs is not None and not isinstance(inputs, Tensor):
            inputs = padded(inputs, self.require_tokenizer, self.device, arguments)
        decode = with_changes(config, {name: arguments.pop(name) for name in DRAFTING if name in arguments})
        refuse_withheld(arguments)
        if config is not None and generation_config is None and not {"max_new_tokens", "max_length"} & arguments.keys():
            arguments["max_new_tokens"] = config.max_new_tokens
        own = self.base.model.generation_config
        arguments |= with_stop_strings(arguments, generation_config, own, tokenizer or self.tokenizer)
        bridge = self.bridge(decode, streamer, structured)
        with self.base.turn:  # threads wait for one another
            result: Tensor | GenerateDecoderOnlyOutput = self.base.model.generate(
                inputs, generation_config, custom_generate=bridge, **arguments
            )
        return result

    def bridge(
        self, config: DecodeConfig | None = None, streamer: BaseStreamer | None = None, structured: Any = None
    ) -> Bridge:
        """A callable for `base.generate(..., custom_generate=...)` that drafts as `config` says.

        transformers withholds two things from such a callable. Its own `streamer`: give it here. The tokenizer that
        `stop_strings` needs: pass `stopping_criteria=[StopStringCriteria(tokenizer, strings)]`. How much is generated
        is for transformers' arguments to say. `structured` as `generate` takes it.
        """
        return Bridge(self._core, config or DecodeConfig(), streamer, structured, self.tokenizer)

    def __call__(self, *prepared: Any, **named: Any) -> Tensor | GenerateDecoderOnlyOutput:
        """`base.generate(..., custom_generate=this)`: what transformers calls, as `bridge()` with its defaults.

        Returns as `generate` does. Raises PromptError for what cannot be accelerated, before anything is decoded.
        """
        with self.base.turn:
            return self.bridge()(*prepared, **named)

    def answer(
        self,
        prompts: Any,
        config: DecodeConfig | None = None,
        watch: Callable[[int, Step], None] = lambda index, step: None,
        structured: Any = None,
        **changes: Any,
    ) -> Any:
        """Answers to user messages, greedy unless asked otherwise: an `Answer` to one prompt, a list to a list.

        `prompts` is a text (through the chat template, where there is one), a chat (messages), token ids, or a list of
        one of these. `changes` are fields of `DecodeConfig`, `SampleConfig` (`temperature`, `top_p`, ...) and
        `PenaltyConfig`; `watch(prompt index, step)` is called as steps are kept; `structured` as for `generate`. Raises
        PromptError, ConfigError, MissingPackage.
        """
        ids, one = prompt_ids(prompts, self.require_tokenizer, raw=False)
        decode, sample, penalties = settings_of(config, changes)
        chooser = choosing(sample, penalties, ids, Limits(self.grammar(structured)))
        said = self.decode(ids, decode, GenerationHooks(chooser=chooser, watch=watch))
        chooser.check(said)
        answers = [Answer.of(own, self.tokenizer, len(prompt)) for own, prompt in zip(said, ids)]
        return answers[0] if one else answers

    def grammar(self, structured: Any) -> Grammar | None:
        """What `generate` takes as `structured`, read once for many requests (`Limits`). Raises PromptError."""
        return grammar_of(structured, self.require_tokenizer, self.base.vocabulary, self.base.stop_tokens)

    def decode(
        self, prompts: Sequence[Sequence[int]], config: DecodeConfig | None = None, how: GenerationHooks | None = None
    ) -> list[Generation]:
        """Continuations of `prompts`, token ids of any lengths, decoded together: tokens, and what each step kept.

        Greedy, unless the hooks `how` choose otherwise: `GenerationHooks(chooser_of(SampleConfig(temperature=1.0)))`.
        Raises PromptError for what cannot be served (`check_prompts`), ConfigError where steps cannot be compiled.

            [said] = model.decode([model.tokenizer.encode("Once upon a time")], DecodeConfig(layout="linear"))
        """
        with self.base.turn:
            return generate(self._core, prompts, config or DecodeConfig(), how)

    def check_prompts(self, prompts: Sequence[Sequence[int]], config: DecodeConfig | None = None) -> None:
        """Raise PromptError where `decode` would: no prompt, one without tokens, past the context, unknown ids."""
        check_prompts(self._core, prompts, config or DecodeConfig())

    def prepare(self, config: DecodeConfig) -> None:
        """Make ready to decode as `config` says, so that the first step need not: hooks, compiled steps, weights.

        Raises ConfigError where steps cannot be compiled.
        """
        prepare(self._core, config)
        self._core.packing.pack()

    def planner(self, batch_size: int, length: int, masks: int = 0, watch: Watch = unwatched) -> Planner:
        """What `planned` chooses layouts with, for `batch_size` prompts of at most `length` tokens.

        It may be shared by requests, for `GenerationHooks`. Steps are measured first where that was never done here,
        for about ten seconds; `watch` is told the share (0 to 1) that is over. `masks`: the most, 0 as trained.
        """
        return planner_for(self._core, batch_size, length, masks, watch)

    def step_costs(
        self, sizes: Iterable[tuple[int, int]], watch: Watch = unwatched, seconds: float | None = None
    ) -> list[Curve]:
        """Seconds of a step in each layout at these (batch size, cached tokens), rounded up to what is measured.

        One for each that is different. Read from the cache folder where they are known, unless `seconds` are given:
        then each is measured anew for so long, and kept.
        """
        cells = dict.fromkeys(rounded(self._core, *size) for size in sizes)
        if seconds is None:
            return [curve_for(self._core, *cell, watch) for cell in cells]
        return [calibrate(self._core, *cell, seconds, watch) for cell in cells]

    def expected_acceptance(self) -> tuple[float, ...]:
        """Share of steps that keep the j-th draft: as training left it, else a guess."""
        return known_acceptance(self._core)

    def planners(self, masks: int = 0) -> Planners:
        """The same for any batch size and context length, with no wait: what is not known is measured between steps."""
        return Planners(self._core, masks)

    def engine(self, config: DecodeConfig, queue: QueueConfig) -> Engine:
        """Continuous batching: an engine whose requests share steps, and which measures them when it has nothing to do.

        Raises ConfigError for texts longer than the base can serve together.
        """
        return Engine.open(self._core, config, queue)

    def kv_bytes(self, config: DecodeConfig, sequences: int, tokens: int) -> int:
        """Bytes of K/V that an engine holds for so many sequences of so many tokens."""
        return kv_bytes(self._core, config, sequences, tokens)
