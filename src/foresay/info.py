"""The verb `info`: what a model folder or a base is."""

from dataclasses import asdict, dataclass
from typing import Any

from foresay import artefact
from foresay.model import MultiTokenModel
from foresay.modelling.load import adapter_folder
from foresay.modelling.model import MaskModel
from foresay.modelling.quantize import quantization_of


@dataclass(frozen=True, slots=True)
class Info:
    """Facts of a multi-token model."""

    folder: str
    base: str
    base_adapter: str
    """The user's LoRA on the base; empty: none."""
    quantization: str
    """How the base is quantised; empty: not at all."""
    base_kind: str
    base_parameters: int
    context: int
    dtype: str
    """What the base is loaded in."""
    device: str
    adapter_parameters: int
    adapted_linears: int
    left_alone: tuple[str, ...]
    """Routers and experts without LoRA."""
    settings: dict[str, Any]
    fingerprints: dict[str, Any]
    provenance: dict[str, Any]


def describe(model: MultiTokenModel, folder: str) -> Info:
    """Facts of `model`, loaded from `folder`."""
    settings = artefact.read_settings(adapter_folder(folder))
    core = model.core
    return Info(
        folder=folder,
        base=model.base_name,
        base_adapter=model.base_adapter,
        quantization=quantization_of(core.model.config),
        base_kind=type(core.model).__name__,
        base_parameters=sum(parameter.numel() for parameter in core.model.parameters()),
        context=core.base.context,
        dtype=model.dtype,
        device=str(core.base.device),
        adapter_parameters=sum(parameter.numel() for parameter in core.added.parameters()),
        adapted_linears=len(core.adapter.pairs) if isinstance(core, MaskModel) else 0,
        left_alone=core.base.linears().left_alone if isinstance(core, MaskModel) else (),
        settings=asdict(settings.mtp),
        fingerprints=asdict(settings.fingerprints),
        provenance=settings.provenance,
    )
