"""`foresay info`: what a model folder or a base is."""

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from foresay.cli.commands.options import Model, Opening
from foresay.cli.terminal import OUT, print_json
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.base.load import adapter_folder
from foresay.models.base.quantization import quantization_of
from foresay.models.masks.model import MaskModel


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


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoCommand:
    """Say what a model is: base, adapter, fingerprints, how it was trained.

    Examples:
      foresay info nano
      foresay info my-adapter --json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Print the facts."""
        facts = asdict(describe(self.opening.open(self.model), self.model))
        if self.json:
            print_json(facts)
        else:
            OUT.print(yaml.safe_dump(_plain(facts), sort_keys=False, allow_unicode=True).rstrip(), highlight=False)
        return 0


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


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
        adapter_parameters=sum(parameter.numel() for parameter in core.added.parameters()),
        adapted_linears=len(core.adapter.pairs) if isinstance(core, MaskModel) else 0,
        left_alone=core.base.linears().left_alone if isinstance(core, MaskModel) else (),
        settings=asdict(settings.mtp),
        fingerprints=asdict(settings.fingerprints),
        provenance=settings.provenance,
    )
