"""`foresay compress`: a smaller LoRA rank."""

from dataclasses import dataclass, field
from pathlib import Path

from foresay.cli.commands.options import Chosen, Model, Opening
from foresay.cli.terminal import ERR, OUT, print_json
from foresay.cli.views.bars import progress_bar
from foresay.foundation.files import check_output
from foresay.models.base.load import adapter_folder
from foresay.models.config import DType
from foresay.training.compress import compress


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressCommand:
    """Cut an adapter's LoRA to a smaller rank: cheaper steps, nearly the same drafts, the same output.

    Examples:
      foresay compress my-adapter --rank 16 --out my-adapter-16
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    rank: int
    """Rank to keep, smaller than the adapter's."""
    out: Path
    """Folder for the smaller model."""
    overwrite: bool = False
    """Replace what is in the folder."""
    save_dtype: DType = "float32"
    """Dtype of the saved adapter."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Cut, measure, save."""
        check_output(self.out, self.overwrite, (self.model, self.opening.base or self.model))
        model = self.opening.open(self.model)
        # What is cut is the adapter as it was saved, whatever the base decodes in.
        model.added.float()
        model.load_weights(adapter_folder(self.model))
        with progress_bar(ERR) as bar:
            bar.add_task("measuring what the smaller adapter drafts", total=None)
            small = compress(model, self.rank, self.chosen.load(model, 16, "dev"))
        small.save_pretrained(self.out, self.save_dtype, self.overwrite)
        rates = small.provenance["tokens_per_step"]
        if self.json:
            print_json({"folder": str(self.out), **small.described, "rank": self.rank, "tokens_per_step": rates})
        else:
            said = ", ".join(f"{domain} {rate:.2f}" for domain, rate in rates.items())
            OUT.print(f"rank {self.rank} lies in {self.out}; tokens per step now: {said}")
        return 0
