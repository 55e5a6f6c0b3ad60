"""`foresay export`."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foresay.cli.commands.options import Model
from foresay.cli.terminal import ERR, OUT, print_json
from foresay.foundation.errors import require
from foresay.foundation.files import check_output
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.peft import export_peft
from foresay.models.base.load import adapter_folder, own_dtype
from foresay.models.config import DType
from foresay.serving.config import PluginConfig
from foresay.serving.vllm.export import export_vllm, export_vllm_draft_model
from foresay.serving.vllm.manifest import command_arguments, engine_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCommand:
    """Write a model in the form that another engine reads.

    vllm: a served copy of the base that holds the masks in added rows of its vocabulary, and the adapter; it prints the
    arguments that vLLM is started with. vllm-draft-model: the fallback without private names of vLLM, the base with the
    adapter as its parallel draft model (two passes a step). peft: the LoRA half alone, which PEFT lets act on every row
    (not for text).

    Examples:
      foresay export smollm2 --to vllm --out served
      foresay export smollm2 --to vllm-draft-model --out draft --masks 4
      foresay export my-adapter --to peft --out lora
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    to: Literal["vllm", "vllm-draft-model", "peft"]
    """Whose form."""
    out: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace what is in the folder."""
    json: bool = False
    """Print one JSON object."""
    base: str = ""
    """Base to use instead of the one the model names: a folder, a GGUF file, a hub id, smollm2 or nano."""
    dtype: DType | Literal["own"] = "own"
    """Dtype of the served copy; `own`: that of the base's checkpoint."""
    plugin: PluginConfig = field(default_factory=PluginConfig)

    def run(self) -> int:
        """Write the folder; how it is used goes to stderr, what vLLM takes to stdout."""
        check_output(self.out, self.overwrite, (self.model, self.base or self.model))
        adapter = adapter_folder(self.model)
        if self.to == "peft":
            require(self.plugin == PluginConfig(), "masks, lengths and busy-requests are for vLLM; leave them out")
            unread = "base and dtype are for vLLM (the LoRA is written as it was saved, and no base is opened)"
            require(not self.base and self.dtype == "own", f"{unread}; leave them out")
            export_peft(adapter, self.out, self.overwrite)
            ERR.print(f"Wrote {self.out}. In PEFT it acts on every row and spoils the text: not for generating.")
            if self.json:
                print_json({"folder": str(self.out), "form": self.to})
            return 0
        masks, draft_model = self.plugin.masks, self.to == "vllm-draft-model"
        require(
            not draft_model or self.plugin == PluginConfig(masks=masks),
            "lengths and busy-requests are settings of masks beside a base, not of a draft model; leave them out",
        )
        settings = artefact.read_settings(adapter)
        base = self.base or artefact.base_of(settings, adapter)
        require(
            settings.base != artefact.HERE,
            f"{self.model} has heads, and the plugin for vLLM runs masks; give an adapter",
        )
        dtype = own_dtype(base) if self.dtype == "own" else self.dtype
        model = MultiTokenModel.from_pretrained(adapter, base, dtype=dtype)
        if draft_model:
            export_vllm_draft_model(model, adapter, self.out, masks, self.overwrite)
        else:
            export_vllm(model, adapter, self.out, self.plugin, self.overwrite)
        ERR.print(
            f"Wrote {self.out} in {model.dtype_name}. Start vLLM with these arguments, where foresay is installed "
            "beside it:"
        )
        arguments = command_arguments(engine_arguments(self.out))
        if self.json:
            facts = {"dtype": model.dtype_name, "vllm_arguments": arguments}
            print_json({"folder": str(self.out), "form": self.to, **facts})
        else:
            OUT.print(shlex.join(arguments), highlight=False, soft_wrap=True)
        return 0
