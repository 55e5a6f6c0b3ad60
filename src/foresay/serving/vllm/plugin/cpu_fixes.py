"""Three bugs of vLLM 0.32 on CPU and a slow path of its LoRA, mended in this process. Never applied on CUDA."""

from collections.abc import Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_base, punica_cpu
from vllm.v1.sample import rejection_sampler

from foresay.serving.vllm.plugin.versions import TESTED, found


@cache
def mend_cpu() -> None:
    """Mend what is broken, once; only in versions that are known to be broken so."""
    if found() not in TESTED:
        return
    rejection_sampler.expand_batch_to_tokens = expand_batch_to_tokens
    for name, function in (("bgmv_shrink", shrink), ("bgmv_expand", expand), ("bgmv_expand_slice", expand_slice)):
        setattr(lora_ops, name, function)
        setattr(punica_cpu, name, function)
    punica_cpu.PunicaWrapperCPU.add_lora_linear = add_lora_linear
    _make_room_for_runs()


def expand_batch_to_tokens(
    x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> Tensor:
    """`x` (B,) repeated for each request's tokens. vLLM's own writes floats (temperatures) into a discarded copy."""
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1)).long()
    expanded = torch.repeat_interleave(x, counts, output_size=num_tokens)
    return torch.where(expanded == replace_from, torch.full_like(expanded, replace_to), expanded)


def shrink(inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, scaling: float = 1.0) -> None:
    """`output` (N, R) = scaling x each row's own pair. vLLM's own takes index -1, "no LoRA", for the last adapter."""
    product = scaling * _product(inputs.to(output.dtype), weights, indices)
    output[:, : product.shape[1]] = product


def expand(inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, add_inputs: bool = True) -> None:
    """`output` (N, out) (+)= each row's own pair."""
    expand_slice(inputs, weights, output, indices, 0, min(weights.shape[-2], output.shape[1]), add_inputs)


def expand_slice(  # noqa: PLR0917 - vLLM's own signature
    inputs: Tensor,
    weights: Tensor,
    output: Tensor,
    indices: Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """The same on columns `slice_offset` on."""
    product = _product(inputs.to(output.dtype), weights, indices)[:, :slice_size]
    part = output[:, slice_offset : slice_offset + slice_size]
    part.add_(product) if add_inputs else part.copy_(product)


def add_lora_linear(  # noqa: PLR0917 - vLLM's own signature
    self: Any,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: Sequence[Tensor],
    lora_b_stacked: Sequence[Tensor],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    """`y` (N, out) += each row's own pairs of `x` (N, in), of linears that vLLM joined in one.

    Weights are (slots, 1, R, in) and (slots, 1, out, R) for each. vLLM's own works out the adapters of all rows anew in
    every linear, which took a third of a step of smollm2.
    """
    rows, states = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    indices, start = self._token_lora_indices[: states.shape[0], None], 0
    for down, up, size in zip(lora_a_stacked, lora_b_stacked, output_slices):
        part = rows[:, start : start + size]
        for slot in range(down.shape[0]):
            narrow = (states @ down[slot, 0].t()).mul_(indices == slot)
            part.addmm_(narrow, up[slot, 0, :size].t(), alpha=scale)
        start += size


def _product(inputs: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
    """(N, in) x (slots, [1,] out, in) -> (N, out), each row by the slot of its index; rows below 0 give 0."""
    if weights.ndim == 4:
        weights = weights.squeeze(1)
    parts = [(inputs * (indices == slot)[:, None]) @ weight.to(inputs.dtype).t() for slot, weight in enumerate(weights)]
    return torch.stack(parts).sum(dim=0)


def _make_room_for_runs() -> None:
    """Room for two runs of rows with one adapter in each request; vLLM's own is for one."""
    plain = punica_base.PunicaWrapperBase.__init__

    @wraps(plain)
    def init(self: Any, max_num_batched_tokens: int, max_batches: int, device: Any, **more: Any) -> None:
        plain(self, max_num_batched_tokens, 2 * max_batches + 1, device, **more)

    punica_base.PunicaWrapperBase.__init__ = init
