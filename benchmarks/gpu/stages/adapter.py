"""An adapter for the real base, made in minutes: its own answers, training on them, tokens per step on held-out text.

The recipe is the default one in the base's own dtype, but for three things: rank 16, so that the folder is small;
steps as large as pay on a card; and as many of them as there is time for, by the seconds that a few take first.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bases import REAL_RANK, real_base
from job import Deadline, Job, Record, Skipped

from foresay import DecodeConfig, MTPConfig, MultiTokenModel, TrainConfig
from foresay.data.prompts import Prompt, by_domain, embedded_prompts
from foresay.data.source import Source
from foresay.decoding.config import SampleConfig
from foresay.decoding.metrics import tally
from foresay.models.base.load import load_tokenizer
from foresay.training.config import DistilConfig
from foresay.training.distillation.backend import Task
from foresay.training.distillation.distill import Distilled, Distiller
from foresay.training.distillation.local import LocalEngine
from foresay.training.train import Recipe, TrainUpdate, train

ANSWERS_SHARE = 0.35
"""Of the stage's time, for the base's answers."""
DECODES_SHARE = 0.12
"""Of the stage's time, for decoding held-out prompts."""
SAMPLED = 0.7
"""Temperature of the answers that are sampled."""
MTP = MTPConfig(rank=REAL_RANK)
LOSSES_KEPT = 50


class TimeOver(Exception):
    """There are answers enough."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    batch: int = 512
    """Prompts answered together, and rows of a file of answers."""
    answer_tokens: int = 256
    passes: int = 4
    """Over the prompts, where there is time: the first one greedy."""
    sequences: int = 32
    anchors: int = 48
    most_steps: int = 5000
    probe_steps: int = 12
    """Steps that are timed before their number is chosen, and thrown away; the first third warms up."""
    per_domain: int = 20
    """Held-out prompts."""
    heldout_tokens: int = 128
    masks: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    """That held-out prompts are decoded with, beside all of them."""


DRY = Sizes(
    4, 8, passes=2, sequences=2, anchors=2, most_steps=3, probe_steps=3, per_domain=1, heldout_tokens=8, masks=(2,)
)


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """Answer, train, decode. Raises Skipped without a base or prompts."""
    base, sizes, whole = real_base(job), DRY if job.dry_run else Sizes(), deadline.left
    if not job.prompts and not job.dry_run:
        raise Skipped("no prompts were given; give a file with --prompts, or set FORESAY_DATA")
    answers = answered(job, sizes, base, record, lambda: deadline.left < whole * (1 - ANSWERS_SHARE))
    making = Making(job, base, answers, sizes, record)
    making.trained(deadline, reserve=DECODES_SHARE * whole)
    model = MultiTokenModel.from_pretrained(job.trained, dtype=job.dtype)
    for layout in ("quadratic", "linear"):
        for masks in sizes.masks:
            if deadline.over:
                record.leave_out(f"{layout} {masks}", "the time was over")
                continue
            config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=sizes.heldout_tokens)  # type: ignore[arg-type]
            record.add(what="tokens per step", layout=layout, masks=masks, **rates(model, making.heldout, config))


def answered(job: Job, sizes: Sizes, base: str, record: Record, enough: Callable[[], bool]) -> tuple[Path, ...]:
    """The base's own answers, greedy and then, for variety, sampled, until there are `enough`; the folders."""
    decode = DecodeConfig(layout="plain", max_new_tokens=sizes.answer_tokens)
    task = Task(base, job.dtype, decode, SampleConfig(), batch_size=sizes.batch)
    engine = LocalEngine.open(task)
    source, folders = Source.parse(job.prompts or toy_prompts(job), ()), list[Path]()
    shutil.rmtree(answers := Path(job.work) / "answers", ignore_errors=True)
    for number in range(sizes.passes):
        if enough():
            break
        sample = SampleConfig(temperature=SAMPLED if number else 0.0, seed=number)
        folders.append(answers / str(number))
        asked = LocalEngine(engine.model, replace(task, sample=sample))
        told = answers_to_all(Distiller(asked, (source,), folders[-1], DistilConfig(shard_rows=sizes.batch)), enough)
        record.add(
            what="answers", temperature=sample.temperature, rows=told.rows, tokens=told.tokens, batch=sizes.batch
        )
        record.say(f"{told.rows} answers of the base at temperature {sample.temperature}, {told.tokens} tokens")
    return tuple(folders)


def answers_to_all(distiller: Distiller, enough: Callable[[], bool]) -> Distilled:
    """Answers to all prompts, or to as many as come before there are `enough`: the files written so far stand."""
    last = Distilled("")

    def watch(done: Distilled) -> None:
        nonlocal last
        last = done
        if enough():
            raise TimeOver

    with suppress(TimeOver):
        return distiller.run(watch)
    return last


def toy_prompts(job: Job) -> str:
    """A few prompts for the dry run."""
    path = Path(job.work) / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "Count to {number}."}}\n' for number in range(2, 14)))
    return str(path)


@dataclass(slots=True)
class Making:
    """The adapter of a base, from its answers."""

    job: Job
    base: str
    answers: tuple[Path, ...]
    sizes: Sizes
    record: Record

    @property
    def heldout(self) -> list[Prompt]:
        """Prompts that come with the package; none is trained on."""
        return embedded_prompts(load_tokenizer(self.base), "test", self.sizes.per_domain, self.base)

    def trained(self, deadline: Deadline, reserve: float) -> None:
        """Train until `reserve` seconds are left; the folder is `job.trained`, and holds what there is after a cut."""
        step = self.seconds_of_a_step()
        steps = max(min(int((deadline.left - reserve) / step), self.sizes.most_steps), 1)
        losses = dict[int, float]()
        shutil.rmtree(self.job.trained, ignore_errors=True)
        done = train(
            self.recipe(self.job.trained, steps),
            lambda news: losses.update({news.progress.step: news.progress.losses.total}),
            self.heldout,
            stop=lambda progress: deadline.left < reserve / 2,
        )
        every = max(steps // LOSSES_KEPT, 1)
        rows = done.steps * self.sizes.sequences * self.sizes.anchors * MTP.num_masks
        self.record.add(
            **{"what": "training", "steps": done.steps, "steps_planned": steps, "seconds_of_a_step": step},
            **{"seconds": done.seconds, "mask_rows": rows, "examples": done.examples},
            losses={number: loss for number, loss in losses.items() if number % every == 0},
            measured=done.measured and asdict(done.measured),
        )
        said = ", ".join(f"{domain} {rate:.2f}" for domain, rate in done.tokens_per_step.items())
        self.record.say(f"{done.steps} steps of {1e3 * step:.0f} ms, {rows} mask rows; tokens per step: {said}")

    def seconds_of_a_step(self) -> float:
        """Of a few steps, whose adapter is thrown away."""
        out, seconds = Path(self.job.work) / "probe", list[float]()

        def watch(news: TrainUpdate) -> None:
            seconds.append(news.progress.step_seconds)

        train(self.recipe(out, self.sizes.probe_steps), watch)
        shutil.rmtree(out)
        return sum(timed := seconds[len(seconds) // 3 : self.sizes.probe_steps]) / len(timed)

    def recipe(self, out: Path, steps: int) -> Recipe:
        """The default one but for the sizes."""
        train = TrainConfig(
            **{"steps": steps, "warmup_steps": min(TrainConfig().warmup_steps, max(steps // 10, 1))},
            **{"sequences": self.sizes.sequences, "anchors": self.sizes.anchors, "heldout": 0},
            **{"eval_tokens": self.sizes.heldout_tokens, "eval_batch": 4 * self.sizes.per_domain},
            **{"dtype": self.job.dtype, "save_dtype": "bfloat16", "tracker": "none"},
        )  # type: ignore[arg-type]
        return Recipe(self.base, self.answers, out, MTP, train=train, overwrite=True, restart=True)


def rates(model: MultiTokenModel, prompts: list[Prompt], config: DecodeConfig) -> dict[str, dict[str, float]]:
    """Tokens per step of each domain, its prompts decoded together."""
    return {
        "tokens_per_step": {
            domain: tally(model.decode([prompt.ids for prompt in group], config)).tokens_per_step
            for domain, group in by_domain(prompts).items()
        }
    }
