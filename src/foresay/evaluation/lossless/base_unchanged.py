"""Is the base still itself? Every bit of its weights, and what it says while an adapter is attached to it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foresay.foundation.hashes import sha256
from foresay.model import MultiTokenModel

ROWS, LENGTH = 4, 32
"""Sequences that a witness puts to the base, and their tokens."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What a base was at one time, to the bit."""

    weights: str
    """SHA-256 of every weight and buffer."""
    logits: str
    """SHA-256 of its logits on fixed prompts."""


@dataclass(frozen=True, slots=True)
class BaseUnchanged:
    """The base by itself, and the same base after all that was done with an adapter on it, its gate closed."""

    before: Witness
    after: Witness

    @property
    def holds(self) -> bool:
        """Nothing changed, not by one bit."""
        return self.before == self.after

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        changed = [name for name in Witness.__slots__ if getattr(self.before, name) != getattr(self.after, name)]
        if changed:
            return f"The base is NOT itself any more: its {' and its '.join(changed)} changed."
        return "The base is untouched: weights, and logits with the adapter on and its gate closed, equal to the bit."


@torch.no_grad()
def witness(model: PreTrainedModel) -> Witness:
    """What `model` is now; its logits come from its own forward."""
    known = model.get_input_embeddings().weight.shape[0]
    drawn = torch.randint(known, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    logits = model.eval()(input_ids=drawn.to(model.device), use_cache=False).logits
    return Witness(sha256(_weights(model)), sha256([_bytes(logits)]))


def check_untouched(before: Witness, model: MultiTokenModel) -> BaseUnchanged:
    """Compare with the base as it is now, the adapter on it and the gate closed."""
    model.attach_hooks()
    return BaseUnchanged(before, witness(model.base.model))


def _weights(model: PreTrainedModel) -> Iterator[str | memoryview]:
    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}"
        yield _bytes(tensor)


def _bytes(tensor: Tensor) -> memoryview:
    """The bits of a tensor, on the CPU, without a copy where it is there."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
