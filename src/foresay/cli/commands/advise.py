"""`foresay advise`: will it pay here?"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import tyro

from foresay.cli.commands.options import Threaded, tell_loaded
from foresay.cli.terminal import ERR, OUT, print_json, print_table
from foresay.cli.views.advice import advice_view
from foresay.cli.views.bars import calibration_watch, progress_bar
from foresay.evaluation.config import AdviseConfig
from foresay.evaluation.speed.advise import Advice, advise
from foresay.model import MultiTokenModel
from foresay.models.config import LoadConfig, MTPConfig
from foresay.training.config import LossConfig, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviseCommand(Threaded):
    """Say, before any training, what an adapter would be worth on this machine.

    Whole steps of every layout are timed in turn on the base with an untrained adapter; with the acceptance that is
    assumed, they give the expected tokens a second and where drafts pay, do not, or are too close to tell. A few
    training steps say what training takes.

    Examples:
      foresay advise smollm2
      foresay advise meta-llama/Llama-3.2-1B --dtype bfloat16 --batch-sizes 1 4 16 --contexts 512 2048
      foresay advise my-base --acceptance 0.7 0.5 0.35 0.25 --rank 128
      foresay advise my-base --results eval-of-another.json --json
    """

    base: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
    """The base: a folder, a GGUF file, a hub id, smollm2 or nano."""
    json: bool = False
    """Print one JSON object."""
    advice: AdviseConfig = field(default_factory=AdviseConfig)
    mtp: MTPConfig = field(default_factory=MTPConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    loading: LoadConfig = field(default_factory=LoadConfig)

    def run(self) -> int:
        """Measure, foretell, print."""
        self.use_threads()
        model = MultiTokenModel.from_base(self.base, self.mtp, dtype=self.train.dtype, loading=self.loading)
        tell_loaded(model)
        with progress_bar(ERR) as bar:
            bar.add_task("measuring steps of decoding, then of training", total=None)
            found = advise(model, self.advice, self.train, self.losses, calibration_watch(bar))
        if self.json:
            print_json(content_of(found))
        else:
            print_table(advice_view(found))
            OUT.print(found.sentence)
        return 0


def content_of(found: Advice) -> dict[str, Any]:
    """For JSON."""
    cells = dict.fromkeys((offer.domain, offer.context_tokens) for offer in found.offers)
    even = [
        {"domain": domain, "context_tokens": context, "plain_is_best_from_batch": found.break_even(domain, context)}
        for domain, context in cells
    ]
    best = [
        {"best": offer.best.label, "speedup": offer.speedup, "interval": offer.interval, "pays": offer.pays}
        for offer in found.offers
    ]
    content = asdict(found)
    content["offers"] = [offer | more for offer, more in zip(content["offers"], best)]
    content["training"]["seconds"] = found.training.seconds
    return content | {"break_even": even, "sentence": found.sentence}
