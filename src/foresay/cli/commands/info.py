"""`foresay info`: what a model folder or a base is."""

from dataclasses import asdict, dataclass, field

import torch

from foresay.cli.commands.options import Model, Opening
from foresay.cli.terminal import OUT, print_json
from foresay.cli.views.info import AdapterSize, BaseInfo, Info, base_facts, model_facts
from foresay.cli.views.text import facts_text
from foresay.foundation.errors import require
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.base.load import BaseName, adapter_folder, is_adapter, own_dtype, weightless_base
from foresay.models.base.model import Base
from foresay.models.base.quantization import quantization_of
from foresay.models.config import LoadConfig, MTPConfig
from foresay.models.masks.model import MaskModel
from foresay.models.masks.targets import targeted

RANKS = (16, 64, 128)
"""Ranks whose adapters are weighed: small, the default, and paper A's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoCommand:
    """Say what a model is: base, adapter, fingerprints, how it was trained; of a base, what an adapter would weigh.

    It fits a screen; --json holds everything: all settings of training, all that was measured, file hashes.

    Examples:
      foresay info smollm2
      foresay info model.gguf
      foresay info my-adapter --json
    """

    model: Model
    """Folder of a foresay model, or a base: a folder, a GGUF file, a hub id, smollm2 or nano."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Print the facts."""
        facts = self._facts()
        if self.json:
            print_json(asdict(facts))
        else:
            OUT.print(facts_text(model_facts(facts) if isinstance(facts, Info) else base_facts(facts)), highlight=False)
        return 0

    def _facts(self) -> Info | BaseInfo:
        if is_adapter(self.model):
            return describe(self.opening.open(self.model), self.model)
        require(not self.opening.base, f"{self.model} is no foresay model, so it has no other base; leave out --base")
        return describe_base(self.model, self.opening.loading)


def describe(model: MultiTokenModel, folder: str) -> Info:
    """Facts of `model`, loaded from `folder`."""
    settings = artefact.read_settings(adapter_folder(folder))
    adapter = model.mask_model.adapter if model.family == "masks" else None
    return Info(
        folder=folder,
        base=model.base_name,
        base_adapter=model.base_adapter,
        quantization=quantization_of(model.base.model.config),
        base_kind=type(model.base.model).__name__,
        base_parameters=sum(parameter.numel() for parameter in model.base.model.parameters()),
        layers=model.base.layers,
        context=model.base.context,
        dtype=model.dtype_name,
        device=str(model.base.device),
        adapter_parameters=sum(parameter.numel() for parameter in model.added.parameters()),
        adapted_linears=len(adapter.pairs) if adapter else 0,
        left_alone=model.base.linears().left_alone if adapter else (),
        settings=asdict(settings.mtp),
        fingerprints=asdict(settings.fingerprints),
        provenance=settings.provenance,
    )


def describe_base(name: str, loading: LoadConfig | None = None) -> BaseInfo:
    """Facts of the base called `name`, from its settings alone: no weight is read.

    Raises BaseNotFound, and UnsupportedBase for a base that foresay cannot drive.
    """
    loading = loading or LoadConfig()
    guest = BaseName.find(name, loading.base_adapter, loading.gguf_file)
    with torch.device("meta"):
        base = Base(weightless_base(guest.base))
        linears = base.linears()
        return BaseInfo(
            base=guest.base,
            base_adapter=guest.adapter,
            quantization=quantization_of(base.model.config),
            family=base.model.config.model_type,
            base_kind=type(base.model).__name__,
            base_parameters=sum(parameter.numel() for parameter in base.model.parameters()),
            layers=base.layers,
            context=base.context,
            vocabulary=base.vocabulary,
            dtype=own_dtype(guest.base),
            adapted_linears=len(targeted(linears.adapted, MTPConfig().lora_targets)),
            left_alone=linears.left_alone,
            adapters=tuple(_size(base, rank) for rank in RANKS),
        )


def _size(base: Base, rank: int) -> AdapterSize:
    added = MaskModel(base, MTPConfig(rank=rank)).added
    parameters = sum(parameter.numel() for parameter in added.parameters())
    return AdapterSize(rank, parameters, parameters * torch.bfloat16.itemsize / 1e6)
