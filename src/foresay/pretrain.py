"""The verb `pretrain`: a whole model from random weights, with one head or several (paper B)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from foresay import artefact
from foresay.config import DataConfig, HeadsConfig, PretrainConfig, require
from foresay.continued import continued
from foresay.errors import ConfigError
from foresay.families import family_of
from foresay.fingerprint import fingerprint, weights_hash
from foresay.heldout import HeldOut, heldout_prompts
from foresay.model import MultiTokenModel
from foresay.modelling.blank import blank_model, named_tokenizer, read_config
from foresay.modelling.heads import HeadsModel
from foresay.prompts import Prompt
from foresay.provenance import provenance
from foresay.tracking import NoTracker, Tracker, check_tracker, closing, track
from foresay.training.checkpoint import Checkpoints, run_folder
from foresay.training.corpus import Part, read, split
from foresay.training.data import Encoder, Example
from foresay.training.heads import HeadsObjective
from foresay.training.held_out import bits_per_byte
from foresay.training.parallel import Ranks, joined
from foresay.training.progress import Progress
from foresay.training.source import Source
from foresay.training.token_rows import token_rows
from foresay.training.train import Trainer

MAY_CHANGE = {"chunk_rows", "eval_every", "save_every", "keep_checkpoints", "save_dtype", "parallel", "tracker"}
"""Settings that a run may go on with otherwise than it was begun: they do not change what is learnt."""
DECODED, DECODED_TOKENS = 4, 64
"""Held-out examples of each domain that are decoded at the end, and most tokens of each."""


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """What to make, from what, where to."""

    config: str
    """A folder with a Hugging Face config.json and a tokenizer, or such a JSON file; continued, the name of a model."""
    data: tuple[str | Path, ...]
    """Files, folders or hub ids, with settings as `Source.parse` reads them."""
    out: Path
    tokenizer: str = ""
    """A folder, a hub id or `bytes`; empty: beside the config."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    train: PretrainConfig = field(default_factory=PretrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)
    overwrite: bool = False
    restart: bool = False
    """Forget the checkpoints that an interrupted run left."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a watcher of a run is told after a step."""

    progress: Progress
    tokens_per_second: float
    """Trained so far."""
    bits_per_byte: dict[str, float]
    """By domain, of held-out examples, by head 1; empty before the first measurement."""

    @property
    def figures(self) -> dict[str, float]:
        """What a step is logged with, beside what was measured at it."""
        losses = self.progress.losses
        paid = {"loss/head_1": losses.base, "loss/total": losses.total}
        return {**paid, **self.progress.figures, "tokens_per_second": self.tokens_per_second}


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What a run leaves."""

    folder: Path
    parameters: int
    tokens: int
    """In the data; a run may go over them several times."""
    last: Reading
    tokens_per_step: dict[str, float]
    """By domain, decoded for real with all heads; empty for one head."""
    leads: bool = True


def pretrain(
    recipe: PretrainRecipe,
    watch: Callable[[Reading], None] = lambda reading: None,
    stop: Callable[[Progress], bool] = lambda progress: False,
    told: Callable[[str], None] = lambda sentence: None,
) -> Pretrained:
    """Train a model and save it as an ordinary checkpoint, with its other heads beside it.

    `watch` is told of every step, `stop` may end the run early, `told` hears, in sentences, what became of
    the rows of each source and where figures are logged.
    A run that was killed goes on at its last checkpoint, exactly, when it is started again with the same recipe.
    Raises DataError, ArtefactError, ConfigError, BaseNotFound, UnsupportedBase; then nothing is written.
    """
    check_tracker(recipe.train.tracker)
    with joined(recipe.train.parallel) as ranks:
        return _pretrain(recipe, _Audience(watch, stop, told), ranks)


@dataclass(frozen=True, slots=True)
class _Audience:
    """Who is told what; see `pretrain`."""

    watch: Callable[[Reading], None]
    stop: Callable[[Progress], bool]
    told: Callable[[str], None]


def _pretrain(recipe: PretrainRecipe, audience: _Audience, ranks: Ranks) -> Pretrained:
    place, config = run_folder(recipe.out), recipe.train
    # Killed between its last two acts, a run has left its model and still has its state.
    may_replace = recipe.overwrite or (place.exists() and not recipe.restart)
    artefact.check_writable(recipe.out, may_replace)
    tokenizer = named_tokenizer(recipe.config, recipe.tokenizer)
    model = _blank(recipe, tokenizer)
    parts = _read(recipe, tokenizer, model)
    for part in parts if ranks.leads else ():
        audience.told(part.report.sentence)
    examples, heldout = split(parts, config.heldout, config.seed)
    rows = token_rows(examples, config.length)
    objective = HeadsObjective(model, rows, config)
    start = _start(recipe, model)
    identity = _identity(recipe, start, rows, tokenizer)
    checkpoints = Checkpoints(place, identity, config.keep_checkpoints)
    if recipe.restart and ranks.leads:
        checkpoints.remove()
    described = [part.described for part in parts]
    run = _Run(recipe, start, model, tokenizer, heldout, described, audience, ranks, checkpoints, may_replace)
    with closing(lambda: run.tracker):
        last = Trainer(objective, config, run.after_step, ranks, checkpoints, run.begin).run()
        pretrained = run.finish(last, rows.numel())
    if ranks.leads:
        checkpoints.remove()
    return pretrained


def _blank(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> HeadsModel:
    """Trunk and heads with random weights, or those to go on from; all of them to be trained."""
    config = recipe.train
    if config.continued:
        model = continued(recipe.config, recipe.heads, config.seed)
        require(
            len(tokenizer) <= model.base.vocabulary,
            f"the tokenizer has {len(tokenizer)} tokens and {recipe.config} has weights for {model.base.vocabulary}; "
            "give the tokenizer that it was trained with",
        )
    else:
        base = blank_model(read_config(recipe.config), tokenizer, recipe.heads, config.added_layers, config.seed)
        base = base.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        model = HeadsModel.from_base(base, recipe.heads, config.seed)
    if config.length > model.base.limits[0]:
        raise ConfigError(
            f"length is {config.length} and the config's model reads {model.base.limits[0]} tokens; shorten the rows, "
            "or raise max_position_embeddings"
        )
    if config.length <= recipe.heads.heads:
        raise ConfigError(f"length is {config.length} for {recipe.heads.heads} heads; give longer rows")
    return model.requires_grad_(True)


def _read(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase, model: HeadsModel) -> list[Part]:
    encoder = Encoder(tokenizer, recipe.train.length, frozenset(model.base.stop_tokens))
    sources = [Source.parse(str(text), recipe.reading.columns) for text in recipe.data]
    return [read(source, encoder, recipe.reading.strict) for source in sources]


def _start(recipe: PretrainRecipe, model: HeadsModel) -> dict[str, Any]:
    """What the model is, ready for JSON: its config, or the weights that it goes on from."""
    if not recipe.train.continued:
        return read_config(recipe.config)
    return {"base": fingerprint(model.model, None).base, "heads": weights_hash(model.heads.state_dict())}


def _identity(
    recipe: PretrainRecipe, start: dict[str, Any], rows: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """What a run is: whatever could change a weight, and nothing that cannot."""
    return {
        "model": start,
        "data": {"rows": len(rows), "sha256": hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16]},
        "tokenizer": hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16],
        **asdict(recipe.heads),
        **{name: value for name, value in asdict(recipe.train).items() if name not in MAY_CHANGE},
    }


@dataclass(slots=True)
class _Run:
    """What happens beside the steps: measurements, news, the folder."""

    recipe: PretrainRecipe
    start: dict[str, Any]
    model: HeadsModel
    tokenizer: PreTrainedTokenizerBase
    heldout: Sequence[Example]
    data: list[dict[str, Any]]
    audience: _Audience
    ranks: Ranks
    checkpoints: Checkpoints
    may_replace: bool
    """What lies in the folder is this run's own, or may be overwritten."""
    bits: dict[str, float] = field(default_factory=dict)
    measured_at: int = -1
    """Step that `bits` are of."""
    tracker: Tracker = field(default_factory=NoTracker)

    def begin(self, progress: Progress) -> None:
        """Take up the log where an earlier start left it."""
        recipe = self.recipe
        if self.ranks.leads and recipe.train.tracker != "none":
            settings = {"config": recipe.config, **asdict(recipe.heads), **asdict(recipe.train)}
            own = self.checkpoints.claim()
            self.tracker = track(recipe.train.tracker, recipe.out, own, progress, settings)
            if self.tracker.sentence:
                self.audience.told(self.tracker.sentence)
        if progress.step:
            self.follow(progress)

    def after_step(self, progress: Progress) -> bool:
        """Measure where it is time to, log and tell; true ends the run."""
        self.follow(progress)
        self.tell(progress)
        return self.audience.stop(progress)

    def follow(self, progress: Progress) -> None:
        """Measure where it is time to, and log."""
        every = self.recipe.train.eval_every
        if every and progress.step % every == 0:
            self.measure(progress)
        bits = self.bit_figures if self.measured_at == progress.step else {}
        self.tracker.log(progress.step, {**self.reading(progress).figures, **bits})

    def measure(self, progress: Progress) -> None:
        """Bits per byte as the model is now: only the leading process speaks of them."""
        if self.ranks.leads:
            self.bits, self.measured_at = bits_per_byte(self.model.base, self.tokenizer, self.heldout), progress.step

    @property
    def bit_figures(self) -> dict[str, float]:
        """The last measurement by name, for a tracker."""
        return {f"bits_per_byte/{domain}": value for domain, value in self.bits.items()}

    def reading(self, progress: Progress) -> Reading:
        """What there is to tell of a step."""
        trained = progress.step * self.recipe.train.rows * self.recipe.train.length
        return Reading(progress, trained / max(progress.seconds, 1e-9), self.bits)

    def tell(self, progress: Progress) -> None:
        """Tell the watcher, once for all processes."""
        if self.ranks.leads:
            self.audience.watch(self.reading(progress))

    def finish(self, last: Progress, tokens: int) -> Pretrained:
        """Measure, decode and save what was trained."""
        self.model.requires_grad_(False)
        if self.measured_at != last.step:
            self.measure(last)
            self.tracker.log(last.step, self.bit_figures)
        self.tell(last)
        rates = dict[str, float]()
        whole = MultiTokenModel(self.model, self.tokenizer, artefact.HERE)
        if self.ranks.leads:
            rates = self._decode(whole) if self.model.config.drafts else {}
            self._save(whole, last, rates)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return Pretrained(self.recipe.out, parameters, tokens, self.reading(last), rates, self.ranks.leads)

    def _decode(self, whole: MultiTokenModel) -> dict[str, float]:
        """Tokens per step by domain, on the first held-out examples of each."""
        taken: dict[str, list[Prompt]] = {}
        for prompt in heldout_prompts(self.heldout):
            taken.setdefault(prompt.domain, []).append(prompt)
        prompts = tuple(prompt for some in taken.values() for prompt in some[:DECODED])
        return HeldOut(prompts, DECODED_TOKENS, len(prompts)).measure(whole).tokens_per_step

    def _save(self, whole: MultiTokenModel, last: Progress, rates: dict[str, float]) -> None:
        """Write the ordinary checkpoint, its card, and the other heads beside it."""
        recipe, dtype = self.recipe, getattr(torch, self.recipe.train.save_dtype)
        made = provenance(
            config=self.start,
            heads=asdict(recipe.heads),
            train=asdict(recipe.train),
            data=self.data,
            steps=last.step,
            seconds=round(last.seconds, 1),
            bits_per_byte={name: round(value, 4) for name, value in self.bits.items()},
            tokens_per_step={name: round(value, 3) for name, value in rates.items()},
        )
        settings = artefact.Settings(
            mtp=recipe.heads,
            base=artefact.HERE,
            fingerprints=whole.fingerprints(),
            acceptance=self.model.acceptance,
            provenance=made,
            family=family_of(recipe.heads),
        )
        with artefact.replacing(recipe.out, self.may_replace) as fresh:
            artefact.write_with_base(fresh, self.model, self.tokenizer, settings, dtype)
