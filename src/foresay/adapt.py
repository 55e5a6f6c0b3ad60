"""The verb `train`: from a base and a data file to a saved adapter, with real decodes on the way."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foresay.artefact import check_writable
from foresay.config import DataConfig, DecodeConfig, Family, LossConfig, MTPConfig, TrainConfig
from foresay.decoding.generate import check_prompts, generate
from foresay.decoding.session import Generation
from foresay.metrics import tally
from foresay.model import MultiTokenModel
from foresay.modelling.heads import HeadsModel
from foresay.modelling.model import MaskModel
from foresay.probe import PROBED, check_labels
from foresay.prompts import Prompt, by_domain
from foresay.provenance import provenance
from foresay.training.checkpoint import Checkpoints, run_folder
from foresay.training.corpus import Report, read, split
from foresay.training.data import Encoder, Example
from foresay.training.masks import MaskObjective
from foresay.training.objective import Objective
from foresay.training.parallel import Ranks, joined, shard
from foresay.training.progress import Progress
from foresay.training.retrofit import RetrofitObjective
from foresay.training.source import Source
from foresay.training.train import Trainer
from foresay.training.two_pass import Batch

HELDOUT_TOKENS = 64
"""Length of the decodes while training, in tokens."""
MAY_CHANGE = {"chunk_anchors", "eval_every", "save_every", "keep_checkpoints", "save_dtype", "parallel"}
"""Training settings that a run may go on with otherwise than it was begun: they do not change what is learnt."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to train, on what, where to."""

    base: str
    data: tuple[str | Path, ...]
    """Files, folders or hub ids, with settings as `Source.parse` reads them."""
    out: Path
    mtp: Family = field(default_factory=MTPConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)
    overwrite: bool = False
    restart: bool = False
    """Forget the checkpoints that an interrupted run left."""

    @property
    def run_folder(self) -> Path:
        """Where the state of the run is kept until it is over: beside `out`."""
        return run_folder(self.out)


@dataclass(frozen=True, slots=True)
class News:
    """What a watcher of a run is told after a step."""

    progress: Progress
    tokens_per_step: dict[str, float]
    """By domain, from the last real decode of held-out prompts (quadratic, all masks); empty before the first."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """What a run leaves."""

    model: MultiTokenModel
    folder: Path
    examples: int
    steps: int
    seconds: float
    loss: float
    tokens_per_step: dict[str, float]
    leads: bool = True
    """This process is the only one, or the one that speaks for all."""


def adapt(
    recipe: Recipe,
    watch: Callable[[News], None],
    prompts: Sequence[Prompt] = (),
    stop: Callable[[Progress], bool] = lambda progress: False,
    told: Callable[[Report], None] = lambda report: None,
) -> Adapted:
    """Train an adapter and save it.

    `watch` is told of every step, `prompts` replace the examples held out of the data, `stop` may end the run early,
    `told` hears what became of the rows of each source.
    A run that was killed goes on at its last checkpoint, exactly, when it is started again with the same recipe.
    Raises DataError, ArtefactError, ConfigError, BaseNotFound, UnsupportedBase; then nothing is written.
    """
    with joined(recipe.train.parallel) as ranks:
        return _adapt(recipe, watch, prompts, stop, told, ranks)


def _adapt(
    recipe: Recipe,
    watch: Callable[[News], None],
    prompts: Sequence[Prompt],
    stop: Callable[[Progress], bool],
    told: Callable[[Report], None],
    ranks: Ranks,
) -> Adapted:
    going_on = recipe.run_folder.exists() and not recipe.restart
    check_writable(recipe.out, recipe.overwrite or going_on)
    config = recipe.train
    model = _open(recipe)
    tokenizer = model.require_tokenizer()
    length = min(config.max_length, model.core.base.limits[0])
    encoder = Encoder(tokenizer, length, frozenset(model.core.base.stop_tokens))
    sources = [Source.parse(str(text), recipe.reading.columns) for text in recipe.data]
    parts = [read(source, encoder, recipe.reading.strict) for source in sources]
    examples, heldout = split(parts, 0 if prompts else config.heldout, config.seed)
    decoded = tuple(prompts) or tuple(_as_prompts(heldout))
    if decoded:
        check_prompts(model.core, [prompt.ids for prompt in decoded], DecodeConfig())
    if isinstance(model.core, MaskModel):
        check_labels(model.core, examples[:PROBED])
    for part in parts if ranks.leads else ():
        told(part.report)
    checkpoints = Checkpoints(recipe.run_folder, _identity(recipe, model, examples), config.keep_checkpoints)
    if recipe.restart and ranks.leads:
        checkpoints.remove()
    described = [part.described for part in parts]
    run = _Run(recipe, model, decoded, described, watch, stop, ranks, saved=going_on)
    objective = _objective(recipe, model, examples)
    last = Trainer(objective, config, run.after_step, ranks, checkpoints).run()
    run.finish(last)
    if ranks.leads:
        checkpoints.remove()
    return Adapted(
        model=model,
        folder=recipe.out,
        examples=len(examples),
        steps=last.step,
        seconds=last.seconds,
        loss=last.losses.total,
        tokens_per_step=run.tokens_per_step,
        leads=ranks.leads,
    )


def _open(recipe: Recipe) -> MultiTokenModel:
    """A fresh adapter on the base, whose layers are sharded where the recipe says so."""
    config, sharded = recipe.train, recipe.train.parallel == "fsdp"
    device = "cpu" if sharded else None
    model = MultiTokenModel.from_base(recipe.base, recipe.mtp, dtype=config.dtype, seed=config.seed, device=device)
    model.fingerprints()  # Of whole weights: shards have no fingerprint.
    if sharded:
        shard(model.masks)
    return model


def _objective(recipe: Recipe, model: MultiTokenModel, examples: Sequence[Example]) -> Objective[Batch]:
    """What the recipe's family trains."""
    if isinstance(model.core, HeadsModel):
        return RetrofitObjective(model.core, examples, recipe.train, recipe.losses)
    return MaskObjective(model.masks, examples, recipe.train, recipe.losses)


def _identity(recipe: Recipe, model: MultiTokenModel, examples: Sequence[Example]) -> dict[str, Any]:
    """What a run is: whatever could change a weight, and nothing that cannot."""
    content = hashlib.sha256()
    for example in examples:
        content.update(f"{example.ids} {example.answer}".encode())
    train = {name: value for name, value in asdict(recipe.train).items() if name not in MAY_CHANGE}
    return {
        "base": asdict(model.fingerprints()),
        "data": {"examples": len(examples), "sha256": content.hexdigest()[:16]},
        **asdict(recipe.mtp),
        **asdict(recipe.losses),
        **train,
    }


@dataclass(slots=True)
class _Run:
    """What happens beside the steps: decodes, checkpoints, news."""

    recipe: Recipe
    model: MultiTokenModel
    prompts: tuple[Prompt, ...]
    data: list[dict[str, Any]]
    watch: Callable[[News], None]
    stop: Callable[[Progress], bool]
    ranks: Ranks
    saved: bool
    """What lies in the folder is this run's own."""
    tokens_per_step: dict[str, float] = field(default_factory=dict)

    def after_step(self, progress: Progress) -> bool:
        config = self.recipe.train
        if config.eval_every and progress.step % config.eval_every == 0:
            self.decode()
        if config.save_every and progress.step % config.save_every == 0:
            self.save(progress)
        self.tell(progress)
        return self.stop(progress)

    def finish(self, last: Progress) -> None:
        """Decode and save what was trained."""
        self.decode()
        self.tell(last)
        self.save(last)

    def tell(self, progress: Progress) -> None:
        """Tell the watcher, once for all processes."""
        if self.ranks.leads:
            self.watch(News(progress, self.tokens_per_step))

    def decode(self) -> None:
        """Measure tokens per step on the held-out prompts, by domain."""
        self.tokens_per_step = measure_acceptance(self.model, self.prompts)

    def save(self, progress: Progress) -> None:
        """Write the adapter as it is, once for all processes."""
        if not self.ranks.leads:
            return
        recipe = self.recipe
        self.model.provenance = provenance(
            mtp=asdict(recipe.mtp),
            losses=asdict(recipe.losses),
            train=asdict(recipe.train),
            data=self.data,
            steps=progress.step,
            seconds=round(progress.seconds, 1),
            tokens_per_step={name: round(value, 3) for name, value in self.tokens_per_step.items()},
        )
        self.model.save_pretrained(recipe.out, recipe.train.save_dtype, recipe.overwrite or self.saved)
        self.saved = True


def measure_acceptance(model: MultiTokenModel, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Tokens per step by domain; acceptance per position over all of them becomes the model's own (none: unchanged)."""
    said = {domain: decode_heldout(model, group) for domain, group in by_domain(prompts).items()}
    if said:
        whole = tally(answer for answers in said.values() for answer in answers)
        model.core.acceptance = tuple(round(share, 4) for share in whole.acceptance_per_position)
    return {domain: tally(answers).tokens_per_step for domain, answers in said.items()}


def decode_heldout(model: MultiTokenModel, prompts: Sequence[Prompt]) -> list[Generation]:
    """Decode prompts together: quadratic, all masks."""
    config = DecodeConfig(layout="quadratic", max_new_tokens=HELDOUT_TOKENS)
    return generate(model.core, [prompt.ids for prompt in prompts], config)


def _as_prompts(examples: Sequence[Example]) -> list[Prompt]:
    return [Prompt(example.prompt, example.domain or "heldout", "") for example in examples]
