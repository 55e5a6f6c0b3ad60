"""The base model as a guest. Every foreign name that foresay relies on stands in this file.

Nothing is copied and nothing patched: the base takes `inputs_embeds`, a 4-D mask (or one for each layer type),
`position_ids` and a cache, as any `AutoModelForCausalLM` with attention does, and a forward hook on its trunk lets us
read the states that its head unembeds. Whatever does not fit is refused in one sentence.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache

from foresay.foundation.errors import UnsupportedBase
from foresay.models.base import mask_attention as attention
from foresay.models.base.cache import KeptCache
from foresay.models.base.supported import FULL, kind_of, refuse_unsupported, windows_of
from foresay.models.base.turn import turn_of
from foresay.models.base.user_lora import linear_in, modules_below
from foresay.models.layout.documents import MaskCall

ROUTERS = {"gate", "router", "shared_expert_gate"}
EXPERTS = "experts"
LATENT = {"kv_b_proj"}
"""Linears that read the cache: with latent attention (DeepSeek's MLA) it holds what they make keys and values of."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one call of the base gave."""

    logits: Tensor
    """(B, kept rows, V): the base's own, soft-capping and scaling included."""
    states: Tensor
    """(B, T, D): what the head unembeds, after the final norm."""
    guesses: Tensor | None = None
    """(B, M, V): logits of the M mask rows, which are the last of the T, by their states alone; None: not computed."""

    def select(self, sequences: Tensor) -> "Rows":
        """Of these sequences (int64), in this order."""
        guesses = None if self.guesses is None else self.guesses[sequences]
        return Rows(self.logits[sequences], self.states[sequences], guesses)

    def block(self, rows: Tensor) -> "tuple[Tensor, Tensor | None]":
        """States (B, K, D) and guesses (B, K, V) at the mask rows `rows` (B, K) int64, counted from the first row."""
        states = _at(self.states, rows)
        if self.guesses is None:
            return states, None
        return states, _at(self.guesses, rows - (self.states.shape[1] - self.guesses.shape[1]))


@dataclass(frozen=True, slots=True)
class Linears:
    """The linears of the decoder layers, by their full names."""

    adapted: dict[str, nn.Module]
    """Get gated LoRA: linears, or what PEFT put around one, which then stays inside ours."""
    left_alone: tuple[str, ...]
    """Routers, expert gates, linears that experts are dispatched to, and those that read the cache: they do not see
    the rows of the call in order."""


class Base:
    """A Hugging Face causal LM, frozen and in eval mode, driven through explicit rows.

    Raises UnsupportedBase when the model cannot be driven this way.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        refuse_unsupported(model)
        self.model = model.eval().requires_grad_(False)
        self.config = model.config.get_text_config()
        self.layers = len(_decoder_layers(model))
        self.windows = windows_of(self.config)
        self.context = int(self.config.max_position_embeddings)
        # transformers 5.24 renamed the argument; code that came with a checkpoint keeps the former name.
        self._cache_argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self._states: Tensor | None = None
        self.turn = turn_of(model)
        # Some heads call the decoder past the module that holds it (OPT): the decoder is what always runs.
        model.get_decoder().register_forward_hook(self._read_states)

    @cached_property
    def embedding(self) -> nn.Embedding:
        """Input embeddings E: (V, embedding width)."""
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    @cached_property
    def head(self) -> nn.Linear:
        """Unembedding W_u: (V, width of the states it takes)."""
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    @property
    def vocabulary(self) -> int:
        """Rows of the unembedding, V."""
        return int(self.head.weight.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base's floating point weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings."""
        return next(self.embedding.parameters()).device

    @property
    def attention(self) -> str:
        """Name of the attention implementation (`sdpa`, `eager`, ...)."""
        return str(self.config._attn_implementation)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text, from the base's generation config."""
        stops = self.model.generation_config.eos_token_id
        return () if stops is None else tuple(stops) if isinstance(stops, list) else (stops,)

    @cached_property
    def limits(self) -> tuple[int, ...]:
        """Positions that no call may straddle, ascending: where longrope switches its frequencies, then the context.

        RoPE of that type takes the largest position of the call for all its rows, so that one mask past the switch
        would change the real rows before it.
        """
        ropes = self.config.rope_parameters if hasattr(self.config, "rope_parameters") else None
        if ropes is None:
            return (self.context,)
        kinds = [rope for rope in ropes.values() if isinstance(rope, dict)] or [ropes]
        switches = {r["original_max_position_embeddings"] for r in kinds if r.get("rope_type") == "longrope"}
        return (*sorted(int(switch) for switch in switches if switch < self.context), self.context)

    @cached_property
    def recomputes(self) -> bool:
        """Plain decoding computes its whole cache anew where longrope switches: Phi-3's own `generate` does."""
        own = type(self.model).prepare_inputs_for_generation
        return len(self.limits) > 1 and own is not GenerationMixin.prepare_inputs_for_generation

    def linears(self) -> Linears:
        """Every linear of every decoder layer, fused ones and GPT-2's Conv1D too."""
        adapted, left_alone = {}, []
        prefix = {id(layer) for layer in _decoder_layers(self.model)}
        for layer_name, layer in self.model.named_modules():
            if id(layer) not in prefix:
                continue
            for name, module in modules_below(layer):
                parts = name.split(".")
                if linear_in(module) is None:
                    # Routers and experts of newer transformers are modules with bare parameters.
                    if parts[-1] in ROUTERS | {EXPERTS}:
                        left_alone.append(f"{layer_name}.{name}")
                elif parts[-1] in ROUTERS | LATENT or EXPERTS in parts:
                    left_alone.append(f"{layer_name}.{name}")
                else:
                    adapted[f"{layer_name}.{name}"] = module
        return Linears(adapted, tuple(left_alone))

    def decoder_layers(self) -> nn.ModuleList:
        """The trunk's list of decoder layers."""
        return _decoder_layers(self.model)

    @cached_property
    def sees_all(self) -> bool:
        """Every layer reaches back to the start, through an attention that takes no mask for that."""
        return set(self.windows) == {FULL} and self.config._attn_implementation == "sdpa"

    @cached_property
    def attends_in_place(self) -> bool:
        """Attention may be another than transformers': the base looks it up, and it is a plain softmax."""
        return self.attention == "sdpa" and bool(self.model._supports_attention_backend)

    @cached_property
    def reads_kept_rows(self) -> bool:
        """Mask rows may go through `mask_attention.py`: what is kept are keys and values, no latents of them."""
        latent = any(name.rsplit(".", 1)[-1] in LATENT for name in self.linears().left_alone)
        return self.attends_in_place and not latent

    def attention_masks(self, draw: Callable[[int | None], Tensor]) -> Tensor | dict[str, Tensor]:
        """The masks that the base's attention takes, from `draw(window) -> (B, 1, T, S) bool`.

        Boolean for sdpa, additive for eager (which would add a boolean one as 0 and 1); by layer type where the
        base's layers differ.
        """
        return self._by_layer_type(lambda window: self._for_attention(draw(window)))

    @cached_property
    def _configs(self) -> list[Any]:
        """What the trunk's modules look their attention up in: one object, or copies of it."""
        found = [getattr(module, "config", None) for module in self.model.get_decoder().modules()]
        return list({id(config): config for config in found if hasattr(config, "_attn_implementation")}.values())

    @contextmanager
    def attending(self, name: str) -> Iterator[None]:
        """Let the base's layers look up another attention, where they do, as long as the block runs."""
        if not self.attends_in_place:
            yield
            return
        for config in self._configs:
            config._attn_implementation = name
        try:
            yield
        finally:
            for config in self._configs:
                config._attn_implementation = "sdpa"

    def run(self, embeds: Tensor, positions: Tensor, masks: Any, cache: Cache, keep: Tensor) -> Rows:
        """One forward of rows `embeds` (B, T, E) at `positions` (B, T); logits at the rows `keep` (int64, 1-D)."""
        return self._run(
            inputs_embeds=embeds,
            attention_mask=masks,
            position_ids=positions,
            cache=cache,
            logits_to_keep=keep,
        )

    def run_masks(self, embeds: Tensor, call: MaskCall, cache: KeptCache) -> Tensor:
        """States (B, T, D) of the mask rows `embeds` (B, T, E) of a call, which read what `cache` keeps in place."""
        with self.attending(attention.NAME):
            return self._run(
                inputs_embeds=embeds,
                attention_mask=self._by_layer_type(call.reach),
                position_ids=call.positions(),
                cache=cache,
                logits_to_keep=call.anchors.new_zeros(1),
                kept=cache,
            ).states

    def _run(self, cache: Cache, **inputs: Any) -> Rows:
        output = self.model(**inputs, **{self._cache_argument: cache}, use_cache=True)
        states, self._states = self._states, None
        assert states is not None, "the trunk ran, so its hook did"
        return Rows(output.logits, states)

    def _by_layer_type(self, draw: Callable[[int | None], Tensor]) -> Tensor | dict[str, Tensor]:
        drawn = {kind: draw(window) for kind, window in self.windows.items()}
        return drawn if len(drawn) > 1 else next(iter(drawn.values()))

    def read(self, ids: Tensor) -> Tensor:
        """Whole sequences `ids` (B, T) int64 through the trunk, as transformers runs them: states (B, T, D)."""
        self.model.get_decoder()(input_ids=ids, use_cache=False)
        states, self._states = self._states, None
        assert states is not None, "the trunk ran, so its hook did"
        return states

    def unembed(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., V): the base's logits of these states, as its own forward gives them.

        The scalings of Gemma, Cohere and Granite are the ones known; `MaskModel.probe` compares with the forward.
        """
        return self.scaled(self.head(states))

    def scaled(self, logits: Tensor) -> Tensor:
        """Logits of the bare head (..., V), scaled and capped as the base does; their order stays."""
        config = self.config
        if getattr(config, "logit_scale", None) is not None:
            logits = logits * config.logit_scale
        if getattr(config, "logits_scaling", None) is not None:
            logits = logits / config.logits_scaling
        if getattr(config, "final_logit_softcapping", None) is not None:
            cap = config.final_logit_softcapping
            logits = torch.tanh(logits / cap) * cap
        return logits

    def _read_states(self, module: nn.Module, args: Any, output: Any) -> None:
        self._states = output[0]

    def _for_attention(self, visible: Tensor) -> Tensor:
        if self.config._attn_implementation == "sdpa":
            return visible
        hidden = torch.finfo(self.dtype).min
        return torch.zeros(visible.shape, dtype=self.dtype, device=visible.device).masked_fill(~visible, hidden)


def _at(states: Tensor, rows: Tensor) -> Tensor:
    """(B, K, D) of `states` (B, T, D) at `rows` (B, K)."""
    return states.gather(1, rows[:, :, None].expand(-1, -1, states.shape[2]))


def _decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The trunk's list of decoder layers."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UnsupportedBase(
        f"{kind_of(model)} has no list of {count} decoder layers to adapt; give a decoder-only causal LM"
    )
