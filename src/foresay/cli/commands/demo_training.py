"""`foresay demo --train`: an adapter for the embedded model, trained and measured in four minutes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.rule import Rule

from foresay.cli.terminal import print_table
from foresay.cli.views.bars import bench_watching, progress_bar
from foresay.cli.views.tables import bench_view
from foresay.cli.views.text import coloured
from foresay.cli.views.training import AdapterLines, TrainingView
from foresay.data.prompts import Prompt, by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed.bench import Bench, bench
from foresay.foundation.names import NANO
from foresay.model import MultiTokenModel
from foresay.models.artefact.folder import SETTINGS
from foresay.models.base.load import NANO_FOLDER, load_tokenizer
from foresay.training.config import TrainConfig
from foresay.training.loop.progress import Progress
from foresay.training.recipe import Recipe
from foresay.training.train import train

PROMPTS = 3
"""Held-out prompts of each of the four domains."""
STEPS_A_SECOND = 1.4
"""Training speed of two cores, which sets the number of steps; a slower machine stops at the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDemo:
    """What is trained, and how much is decoded."""

    seconds: float = 90.0
    """Time to train for."""
    out: Path = Path("foresay-demo")
    """Folder for the adapter that it trains."""


def run_training_demo(demo: TrainingDemo, max_new_tokens: int, out: Console, err: Console) -> int:
    """Train, measure, show; 1 when an answer differed from the base's own."""
    out.print(Rule("1. Teach the embedded 5.5 M-parameter model to draft its own future"))
    out.print("Its own weights stay frozen; masks, a gated LoRA and a small sampler head are trained.")
    model = _train(demo, err)
    tokenizer = model.require_tokenizer()
    prompts = embedded_prompts(tokenizer, "test", PROMPTS)
    out.print(Rule("2. Decode held-out prompts: same output, fewer steps"))
    measured = _measure(model, prompts, max_new_tokens, err)
    print_table(bench_view(measured))
    out.print(Rule("3. One answer of each domain; the tokens of each step share a colour"))
    for domain, group in by_domain(prompts).items():
        _show(model, domain, group[0], max_new_tokens, out)
    out.print(Rule("4. Yours now"))
    out.print(
        f"The adapter you trained lies in {demo.out}; a better one, trained longer, comes with foresay as `nano`."
    )
    out.print('  foresay generate nano "Write a function to reverse a list." --colour --stats')
    out.print(f"  foresay check {quote(str(demo.out))}")
    out.print("  foresay train nano --data YOUR.jsonl --out my-adapter")
    return 0 if all(result.identical == result.prompts for result in measured.results) else 1


def _train(demo: TrainingDemo, err: Console) -> MultiTokenModel:
    """Train for about the demo's seconds. An adapter that an earlier demo left is replaced, nothing else is."""
    steps = max(int(demo.seconds * STEPS_A_SECOND), 10)
    config = TrainConfig(steps=steps, warmup_steps=10, eval_every=max(steps // 4, 1), save_every=0, tracker="none")
    recipe = Recipe(
        NANO, (NANO_FOLDER / "demo.jsonl",), demo.out, train=config, overwrite=(demo.out / SETTINGS).is_file()
    )
    tokenizer = load_tokenizer(NANO)
    view = TrainingView(err, steps, AdapterLines())
    with view.showing():
        done = train(recipe, view.tell, embedded_prompts(tokenizer, "dev", 2), _deadline(demo.seconds))
    return done.model


def _deadline(seconds: float) -> Callable[[Progress], bool]:
    return lambda progress: progress.seconds >= seconds


def _measure(model: MultiTokenModel, prompts: Sequence[Prompt], max_new_tokens: int, err: Console) -> Bench:
    config = BenchConfig(layouts=("linear", "quadratic"), lookup_tokens=0, max_new_tokens=max_new_tokens, repeats=1)
    with progress_bar(err) as bar:
        return bench(model, prompts, config, bench_watching(bar))


def _show(model: MultiTokenModel, domain: str, prompt: Prompt, max_new_tokens: int, out: Console) -> None:
    tokenizer = model.require_tokenizer()
    [said] = model.decode([prompt.ids], DecodeConfig(layout="quadratic", max_new_tokens=max_new_tokens))
    out.print(f"{domain}: {prompt.text}", style="bold", highlight=False)
    out.print(coloured(tokenizer, said.steps))
    out.print(f"{len(said.tokens)} tokens in {len(said.steps)} steps", style="dim")
