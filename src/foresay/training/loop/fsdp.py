"""Layers in shards, for a model that does not fit one device: FSDP2, a layer a unit.

A layer's weights are gathered for as long as it runs, forward and backward; where they are trained, their gradients
are summed into shards and the optimizer's state is sharded with them. Embeddings, norms and unembeddings stay whole in
every process, since they are used out of the base's own forward too.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, share_comm_ctx
from torch.distributed.tensor import DTensor


def shard(model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Shard `layers` of `model` over all processes; whatever else there is goes whole to this one's device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # Asked for: a unit that is part of no other one would stay gathered after its first forward.
    units = [fully_shard(layer, mesh=mesh, reshard_after_forward=True) for layer in layers]
    for unit in units:
        # Denominators are those of the whole batch, and gloo knows no other reduction than sums.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
        # A step goes backward in several calls, which have no one order to gather ahead by.
        unit.set_modules_to_backward_prefetch([unit])
    # Else each unit keeps its whole gradients until the last has reduced its own.
    share_comm_ctx(units)
    model.to(device)


def is_sharded(module: nn.Module) -> bool:
    """Whether any of its parameters is in shards."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def gather(model: nn.Module, keeps: bool) -> None:
    """Bring the shards of `model` together in the memory of the host, in processes that `keeps` them.

    Every process takes part. The model can then be read and written, and no longer run.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                whole = parameter.full_tensor().detach()
                if keeps:
                    setattr(module, name, nn.Parameter(whole.cpu(), requires_grad=False))


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale all gradients down to a norm of `most` together, where it is larger; what it was.

    torch's own takes shards or whole tensors, not both.
    """
    kinds = [[p for p in parameters if isinstance(p, DTensor) is sharded] for sharded in (False, True)]
    norm = math.hypot(*(_norm(kind) for kind in kinds))
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, most, torch.tensor(norm))
    return norm


def _norm(parameters: Sequence[nn.Parameter]) -> float:
    norm: Tensor = nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
