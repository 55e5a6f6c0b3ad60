"""`foresay calibrate`: what steps cost on this machine."""

from dataclasses import asdict, dataclass, field
from itertools import product

from foresay.cli.commands.options import Model, Opening
from foresay.cli.terminal import ERR, OUT, print_json, print_table
from foresay.cli.views.bars import calibration_watch, progress_bar
from foresay.cli.views.tables import curve_table
from foresay.decoding.step_costs import SECONDS, forecast
from foresay.foundation.errors import require
from foresay.foundation.provenance import provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateCommand:
    """Measure anew what a step costs here: what `--layout planned` chooses by.

    Batch sizes and context lengths are rounded up to those that are kept: powers of two; 128, 512, 2048, 8192 tokens.

    Examples:
      foresay calibrate smollm2
      foresay calibrate my-adapter --batch-sizes 1 8 --contexts 512 2048 --dtype bfloat16
      foresay calibrate my-adapter --json > costs.json
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    batch_sizes: tuple[int, ...] = (1,)
    """Prompts decoded together."""
    contexts: tuple[int, ...] = (128,)
    """Tokens cached before a step."""
    seconds: float = SECONDS
    """Most time for each batch size and context length."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def __post_init__(self) -> None:
        require(self.seconds > 0, f"seconds is {self.seconds}; give a positive time")
        for name in ("batch_sizes", "contexts"):
            values = getattr(self, name)
            require(min(values, default=0) >= 1, f"{name} is {values}; give one or more numbers from 1 up")

    def run(self) -> int:
        """Measure, keep, print."""
        model = self.opening.open(self.model)
        with progress_bar(ERR) as bar:
            sizes = product(self.batch_sizes, self.contexts)
            curves = model.step_costs(sizes, calibration_watch(bar), self.seconds)
        known = model.expected_acceptance()
        if self.json:
            origin = provenance(model=self.model, **model.described)
            content = [
                {"batch_size": curve.batch_size, "context_tokens": curve.context_tokens}
                | {"entries": [asdict(found) for found in forecast(curve, known)]}
                | {"left_out": [entry.label for entry in curve.left_out]}
                | {"calm": curve.calm}
                for curve in curves
            ]
            print_json({"curves": content, "acceptance": known, "provenance": origin})
            return 0
        for curve in curves:
            print_table(curve_table(curve, forecast(curve, known)))
            if curve.left_out:
                names = ", ".join(entry.label for entry in curve.left_out)
                OUT.print(
                    f"Not measured in {self.seconds:g} s, so never taken here: {names}; give more --seconds.",
                    highlight=False,
                )
            OUT.print()
        shares = ", ".join(f"{share:.0%}" for share in known)
        told = "as training left it" if model.acceptance else "assumed, for training left none"
        OUT.print(f"< is what planned begins with.\nDrafts kept, by position, {told}: {shares}.", highlight=False)
        return 0
