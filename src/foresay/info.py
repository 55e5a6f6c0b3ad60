"""The verb `info`: what a model folder or a base is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foresay import artefact
from foresay.model import MultiTokenModel
from foresay.modelling.load import EMBEDDED, NANO
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
    adapter_parameters: int
    adapted_linears: int
    left_alone: tuple[str, ...]
    """Routers and experts without LoRA."""
    settings: dict[str, Any]
    fingerprints: dict[str, Any]
    provenance: dict[str, Any]


def describe(model: MultiTokenModel, folder: str) -> Info:
    """Facts of `model`, loaded from `folder`."""
    place = EMBEDDED / NANO / "adapter" if folder == NANO else Path(folder)
    settings = artefact.read_settings(place)
    core = model.core
    return Info(
        folder=folder,
        base=model.base_name,
        base_adapter=model.base_adapter,
        quantization=quantization_of(core.model.config),
        base_kind=type(core.model).__name__,
        base_parameters=sum(parameter.numel() for parameter in core.model.parameters()),
        context=core.base.context,
        adapter_parameters=sum(parameter.numel() for parameter in core.adapter.parameters()),
        adapted_linears=len(core.adapter.pairs),
        left_alone=core.base.linears().left_alone,
        settings=asdict(settings.mtp),
        fingerprints=asdict(settings.fingerprints),
        provenance=settings.provenance,
    )
