"""The sampler chain on vLLM's model: `decoding/sampling/draft.py` in batches, with the chance of each."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foresay.foundation.errors import ArtefactError
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import Fingerprints
from foresay.models.artefact.tensors import WEIGHTS
from foresay.models.config import MTPConfig
from foresay.models.masks.sampler_head import Sampler, build_sampler
from foresay.serving.vllm.manifest import Manifest
from foresay.serving.vllm.plugin.shortlist import Shortlist

SAMPLER = "sampler."


class Chain:
    """The sampler head beside vLLM's target model, whose embeddings and logits it uses."""

    def __init__(self, target: nn.Module, adapter: Path, served: Manifest) -> None:
        """Raises ArtefactError for an adapter that is not the one `served` was exported with."""
        self.first, self._target, self._compute_logits = served.first_mask, target, target.compute_logits
        self.device = next(target.parameters()).device
        self.masks, self.sampler = masks_and_sampler(read_mtp(adapter, served), adapter)
        self.sampler.to(self.device)
        self.shortlist = Shortlist(target, self.first + len(self.masks))

    def embed(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., E), as the base embeds them."""
        embedded: Tensor = self._target.embed_input_ids(tokens)  # type: ignore[operator]
        return embedded

    def logits_of(self, states: Tensor, *rest: Any) -> Tensor | None:
        """The base's logits of `states` (N, D), no mask possible: (N, V), or None where vLLM gathers elsewhere."""
        logits: Tensor | None = self._compute_logits(states, *rest)  # type: ignore[operator]
        if logits is not None:
            logits[..., self.first : self.first + len(self.masks)] = -torch.inf
        return logits

    @torch.inference_mode()
    def guess(
        self, states: Tensor, newest: Tensor, shortlists: Tensor | None = None
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Best tokens after `newest` (B,) int64 from mask states (B, K, D), and the sampler head's chance of each.

        `shortlists` (B, K, C) int64: the tokens that each is taken from; None: all. The chances are those among them.
        """
        tokens, chances, previous = [], [], newest
        for place, state in enumerate(states.unbind(dim=1)):
            # In float32, as our own engine does: the adapter is small.
            sampled = self.sampler(self.embed(previous).float(), state.float()).to(state.dtype)
            among = None if shortlists is None else shortlists[:, place]
            logits = self.logits_of(sampled) if among is None else self.shortlist.logits(sampled, among)
            assert logits is not None, "every rank of vLLM's tensor parallel gathers all logits"
            best = logits.float().softmax(dim=-1).max(dim=-1, keepdim=True)
            previous = (best.indices if among is None else among.gather(1, best.indices)).squeeze(1)
            tokens.append(previous)
            chances.append(best.values.squeeze(1))
        return torch.stack(tokens, dim=1).tolist(), torch.stack(chances, dim=1).tolist()


def read_mtp(adapter: Path, served: Manifest) -> MTPConfig:
    """How the adapter beside `served` was made. Raises ArtefactError where it is another than the exported one."""
    settings = artefact.read_settings(adapter)
    if settings.fingerprints.differing(Fingerprints(**served.fingerprints)):
        raise ArtefactError(f"{adapter} is not the adapter that its folder was exported with; export it again")
    assert isinstance(settings.mtp, MTPConfig), "only adapters are exported"
    return settings.mtp


def masks_and_sampler(mtp: MTPConfig, adapter: Path) -> tuple[Tensor, Sampler]:
    """Mask embeddings (K, E) and the sampler head, frozen, in float32: as our own engine has it, and small."""
    weights = load_file(adapter / WEIGHTS)
    masks: Tensor = weights.pop("masks")
    width = next(len(value) for name, value in weights.items() if name.endswith(("out.weight", "second.weight")))
    sampler = build_sampler(mtp.sampler, masks.shape[1], width)
    sampler.load_state_dict({name.removeprefix(SAMPLER): value for name, value in weights.items()})
    return masks, sampler.float().requires_grad_(False)
