"""The LoRA half of an adapter as a folder for PEFT."""

import shutil
from pathlib import Path

from foresay.foundation.errors import ConfigError
from foresay.foundation.files import replacing
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.folder import Settings
from foresay.models.artefact.tensors import PEFT_SETTINGS, PEFT_WEIGHTS, lora_folder
from foresay.models.config import HeadsConfig

PEFT_CARD = """---
base_model: {base}
library_name: peft
---
# The LoRA half of a foresay model

**Not for generating text.** It was trained to act on mask rows only. PEFT lets it act on every row, where it spoils
the base's output. Mask embeddings and sampler head are not here. Use it to study the weights, or as what an
engine's own multi-LoRA applies to mask rows.
"""


def export_peft(adapter: Path, out: Path, overwrite: bool) -> Settings:
    """Write the LoRA half of an artefact as a folder for PEFT, with words on what it does there.

    Raises ArtefactError, ConfigError for a model with heads.
    """
    settings = artefact.read_settings(adapter)
    if isinstance(settings.mtp, HeadsConfig):
        raise ConfigError(f"{adapter} has heads, and PEFT takes the LoRA of an adapter with masks; give one of those")
    with replacing(out, overwrite) as fresh:
        for name in (PEFT_SETTINGS, PEFT_WEIGHTS):
            shutil.copy(lora_folder(adapter) / name, fresh / name)
        (fresh / "README.md").write_text(PEFT_CARD.format(base=settings.base), encoding="utf-8")
    return settings
