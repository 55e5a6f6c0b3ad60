"""The fallback: base and adapter as vLLM's parallel draft model, a class of vLLM's registry without private names.

vLLM hands a draft model each request's new tokens and after them masks, all of one id. Here each mask of a run gets
its own embedding, the adapter acts on masks alone, and the sampler head chains their drafts. The draft model only
proposes: whatever it says, vLLM verifies it with the base in a second pass.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.platforms import current_platform

from foresay.foundation.errors import ArtefactError, require
from foresay.models.artefact.tensors import PEFT_PREFIX, PEFT_WEIGHTS, lora_folder
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm.plugin.sampler_chain import masks_and_sampler, read_mtp
from foresay.serving.vllm.plugin.shortlist import Shortlist
from foresay.serving.vllm.plugin.versions import check_version


class Pair(nn.Module):
    """The low-rank pair beside one of vLLM's linears, which may be several of the base's joined in one."""

    def __init__(self, linear: nn.Module, parts: list[tuple[Tensor, Tensor] | None], gate: Tensor) -> None:
        """`parts`: (down (R, in), up (out, R)) of each joined linear, None where it has none."""
        super().__init__()
        sizes = list(getattr(linear, "output_sizes", None) or [linear.output_size])
        known = [(place, *part) for place, part in enumerate(parts) if part is not None]
        self.down = torch.cat([down for _, down, _ in known]).to(gate)
        self.up = gate.new_zeros(sum(sizes), len(self.down))
        self.gate, rank = gate, 0
        for place, down, up in known:
            start = sum(sizes[:place])
            self.up[start : start + len(up), rank : rank + len(down)] = up.to(gate)
            rank += len(down)

    def forward(self, linear: nn.Module, args: tuple[Tensor, ...], output: Any) -> Any:
        """A forward hook: adds the product to mask rows of what vLLM's linear gave, (N, out) or a tuple with it."""
        states = args[0]
        added = functional.linear(functional.linear(states, self.down), self.up) * self.gate[: len(states)]
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added


class DraftModel(nn.Module):
    """What a draft model has beside the base's own class, which stands after this one in the bases."""

    gate: Tensor
    """(rows, 1) 1 at masks: of one place and size for good, so that compiled code and graphs see what is written."""
    embedded: Tensor
    """(rows, E), likewise."""
    embed_input_ids: Callable[[Tensor], Tensor]
    packed_modules_mapping: dict[str, list[str]]
    """vLLM's own: linears that it joined in one, by its name."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        check_version()
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if current_platform.is_cpu():
            from foresay.serving.vllm.plugin.cpu_fixes import mend_cpu  # noqa: PLC0415 - private names, of no use on a GPU

            mend_cpu()
        folder, speculative = Path(vllm_config.model_config.model), vllm_config.speculative_config
        self.served, self.adapter = served.read(folder), folder / served.ADAPTER
        require(
            vllm_config.parallel_config.tensor_parallel_size == 1,
            "the draft model's LoRA is not divided, and tensor parallel was asked for; use foresay export --to vllm",
        )
        require(
            speculative is not None and speculative.parallel_drafting,
            f"{folder} is a parallel draft model; start vLLM with the arguments that foresay export printed",
        )
        assert speculative is not None
        require(
            not speculative.use_local_argmax_reduction,
            "use_local_argmax_reduction passes the sampler head by; leave it out",
        )
        self.drafts: int = speculative.num_speculative_tokens
        most = self.served.num_masks + 1
        require(
            self.drafts <= most, f"num_speculative_tokens is {self.drafts}; give at most {most}: one, and the masks"
        )
        rows, model = vllm_config.scheduler_config.max_num_batched_tokens, vllm_config.model_config
        self.vocabulary = model.get_vocab_size()
        for name, width in (("gate", 1), ("embedded", model.get_hidden_size())):
            self.register_buffer(name, torch.zeros(rows, width, dtype=model.dtype), persistent=False)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The base's weights as its own class loads them, then ours from the adapter's folder."""
        done: set[str] = super().load_weights(weights)  # type: ignore[misc]
        mtp, device = read_mtp(self.adapter, self.served), self.gate.device
        masks, sampler = masks_and_sampler(mtp, self.adapter)
        # Plain attributes: vLLM asks every parameter of a model whether the checkpoint held it.
        self.masks, self.ours = masks.to(self.gate), [sampler.to(device)]
        self.shortlist = Shortlist(self, self.vocabulary)
        self._attach(mtp.scale)
        return done

    def forward(  # noqa: D102 - as the base's
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **more: Any,
    ) -> Any:
        is_mask = input_ids == self.served.first_mask
        self.gate[: len(is_mask), 0] = is_mask
        rows = self.embedded[: len(is_mask)]
        own = self.masks[self._offsets(is_mask)]
        rows.copy_(torch.where(is_mask[:, None], own, self.embed_input_ids(input_ids)))
        return super().forward(None, positions, intermediate_tensors, rows, **more)

    def compute_logits(self, states: Tensor) -> Tensor | None:
        """States (B * drafts, D) of newest tokens and masks -> (B * drafts, V), the masks' through the sampler head."""
        if len(states) % self.drafts:  # vLLM tries shapes out before it serves
            return super().compute_logits(states)  # type: ignore[misc, no-any-return]
        first, *masks = states.view(-1, self.drafts, states.shape[-1]).unbind(dim=1)
        [sampler], logits = self.ours, [super().compute_logits(first)]  # type: ignore[misc]
        shortlists = self._shortlists(masks)
        for state, among in zip(masks, shortlists):
            embedded = self.embed_input_ids(logits[-1].argmax(dim=-1))
            sampled = sampler(embedded.float(), state.float()).to(state)
            if among is None:
                logits.append(super().compute_logits(sampled))  # type: ignore[misc]
            else:
                nothing = torch.full_like(logits[0], -torch.inf)
                logits.append(nothing.scatter(1, among, self.shortlist.logits(sampled, among).to(nothing)))
        return torch.stack(logits, dim=1).flatten(0, 1)

    def _shortlists(self, masks: list[Tensor]) -> Sequence[Tensor | None]:
        """(B, C) int64 for each of the states (B, D): what its draft is taken from; None: all tokens."""
        if not self.shortlist.size or len(masks) < 2:
            return [None] * len(masks)
        ranked = super().compute_logits(torch.cat(masks))  # type: ignore[misc]
        return self.shortlist.best(ranked).chunk(len(masks))

    def _offsets(self, is_mask: Tensor) -> Tensor:
        """(N,) bool -> (N,) int64: which of its run each mask is, 0 elsewhere."""
        count = is_mask.long().cumsum(dim=0)
        before = torch.where(is_mask, 0, count).cummax(dim=0).values
        return (count - before - 1).clamp(0, len(self.masks) - 1)

    def _attach(self, scale: float) -> None:
        """Hang the adapter's pairs on vLLM's linears. Raises ArtefactError for one that finds no place."""
        weights = load_file(lora_folder(self.adapter) / PEFT_WEIGHTS)
        down, up = (
            {name.removeprefix(PEFT_PREFIX).removesuffix(end): t for name, t in weights.items() if end in name}
            for end in (".lora_A.weight", ".lora_B.weight")
        )
        pairs = {name: (tensor, scale * up[name]) for name, tensor in down.items()}
        for name, module in list(self.named_modules()):
            parent, _, last = name.rpartition(".")
            names = [f"{parent}.{part}" for part in self.packed_modules_mapping.get(last, [last])]
            parts = [pairs.pop(one, None) for one in names]
            if any(part is not None for part in parts):
                module.register_forward_hook(Pair(module, parts, self.gate))
        if pairs:
            raise ArtefactError(
                f"vLLM's model has no {next(iter(pairs))}, which the adapter changes; export it --to vllm"
            )


class ForesayLlamaForCausalLM(DraftModel, LlamaForCausalLM):  # type: ignore[misc]
    """Llama."""


class ForesayMistralForCausalLM(DraftModel, MistralForCausalLM):  # type: ignore[misc]
    """Mistral."""


class ForesayQwen2ForCausalLM(DraftModel, Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen 2 and 2.5."""


class ForesayQwen3ForCausalLM(DraftModel, Qwen3ForCausalLM):  # type: ignore[misc]
    """Qwen 3."""
