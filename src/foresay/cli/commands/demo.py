"""`foresay demo`: a newcomer's first three minutes: the same answers, in fewer steps and less time."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from foresay.cli.commands.demo_training import TrainingDemo, run_training_demo
from foresay.cli.commands.options import Threaded
from foresay.cli.terminal import ERR, OUT
from foresay.cli.views.bars import bench_watching, calibration_watch, progress_bar
from foresay.cli.views.side_by_side import Answering, SideBySide
from foresay.data.chat import encode
from foresay.data.prompts import Prompt, embedded_prompts
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.live import GenerationHooks
from foresay.evaluation.config import BenchConfig, CheckConfig
from foresay.evaluation.lossless.greedy import Checker
from foresay.evaluation.speed.timed_runs import Case, Decoder, TimedRuns, Turns, cases_of
from foresay.foundation.errors import ForesayError
from foresay.foundation.names import NANO, SMOLLM2
from foresay.model import MultiTokenModel

QUESTION = "Write a Python function that returns the largest number in a list, and explain how it works."
PROMPTS, DOMAINS = 2, 4
"""Held-out prompts of each domain, and the first domains."""
CHECKED, CHECKED_TOKENS = 4, 24
"""Prompts of the short check, and tokens of each answer."""
DECODERS = ("transformers", "plain", "planned")
COMPARED = {"transformers": "transformers' generate", "plain": "plain decoding"}
"""What `planned` is compared with, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCommand(Threaded):
    """See it in three minutes: one question answered twice side by side, eight prompts timed, a short check.

    The model is smollm2 with the adapter that comes with foresay, or nano where smollm2 is not installed. The first
    question's answer may have twice --max-new-tokens. A demo has no --json: `foresay bench` and `foresay check` do.

    Examples:
      foresay demo
      foresay demo --train
      foresay demo --train --seconds 30 --out /tmp/my-adapter
    """

    train: bool = False
    """Train an adapter for the embedded model instead, and show what it does: four minutes on two CPU cores."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""
    training: TrainingDemo = field(default_factory=TrainingDemo)

    def run(self) -> int:
        """Show; 1 when an answer differed from the base's own."""
        self.use_threads()
        if self.train:
            return run_training_demo(self.training, self.max_new_tokens, OUT, ERR)
        return run_demo(self.max_new_tokens, OUT, ERR)


def run_demo(max_new_tokens: int, out: Console, err: Console) -> int:
    """Answer, measure, check; 1 when an answer differed from the base's own."""
    model = open_model(out)
    out.print(Rule("1. One question, answered twice: the tokens of a step share a colour"))
    out.print(QUESTION, style="bold", highlight=False)
    answer_twice(model, 2 * max_new_tokens, out, err)
    out.print(Rule("2. Held-out prompts: seconds, and are the answers the same?"))
    name = model.base_name
    prompts = embedded_prompts(model.require_tokenizer(), "test", PROMPTS, name)[: PROMPTS * DOMAINS]
    same = time_prompts(model, prompts, max_new_tokens, out, err)
    out.print(Rule("3. A short check of every layout"))
    certificate = Checker(
        model,
        CheckConfig(max_new_tokens=CHECKED_TOKENS, batch_sizes=(CHECKED,)),
        lambda dtype: MultiTokenModel.from_pretrained(name, dtype=dtype),
    ).run(prompts[:CHECKED])
    out.print(certificate.sentence)
    out.print(Rule("4. Yours now"))
    out.print(f'  foresay generate {name} "Why is the sky blue?" --colour --stats')
    out.print(f"  foresay serve {name}                # a chat page, and OpenAI's interface")
    out.print("  foresay train YOUR-BASE --data YOUR.jsonl --out my-adapter")
    return 0 if same and not certificate.bugs else 1


def open_model(out: Console) -> MultiTokenModel:
    """smollm2 with its adapter; where that cannot be had, nano, and why."""
    try:
        return MultiTokenModel.from_pretrained(SMOLLM2)
    except ForesayError as reason:
        out.print(f"Shown on the embedded toy {NANO}: {reason}.", style="yellow", highlight=False)
    return MultiTokenModel.from_pretrained(NANO)


def answer_twice(model: MultiTokenModel, max_new_tokens: int, out: Console, err: Console) -> None:
    """The question through plain and planned decoding, warm, one after the other, in two columns."""
    tokenizer = model.require_tokenizer()
    ids = encode(tokenizer, QUESTION)
    with progress_bar(err) as bar:
        planner = model.planner(1, len(ids), watch=calibration_watch(bar))
    answers = {name: Answering(name, tokenizer) for name in ("plain", "planned")}
    for name in answers:
        model.decode([ids], _decode(name, 4), GenerationHooks(planner=planner))
    both = SideBySide(answers["plain"], answers["planned"], out)
    with both.showing():
        for name, answer in answers.items():
            answer.begin()
            hooks = GenerationHooks(watch=answer.hear, planner=planner)
            model.decode([ids], _decode(name, max_new_tokens), hooks)
    plain, planned = both.left, both.right
    same = "The same text" if plain.text.plain == planned.text.plain else "NOT THE SAME TEXT"
    times = _speed(plain.seconds / planned.seconds)
    out.print(f"{same}, in {planned.steps} steps instead of {plain.steps}, {times}.", highlight=False)


def _decode(layout: str, max_new_tokens: int) -> DecodeConfig:
    return DecodeConfig(layout=cast(LayoutName, layout), max_new_tokens=max_new_tokens)


def _speed(times: float) -> str:
    return f"{times:.1f} times as fast" if times >= 0.95 else f"{1 / times:.1f} times as slow"


def time_prompts(
    model: MultiTokenModel, prompts: Sequence[Prompt], max_new_tokens: int, out: Console, err: Console
) -> bool:
    """Seconds of transformers, plain and planned on the prompts, in one interleaved run; are all answers the same?"""
    config = BenchConfig(layouts=("planned",), lookup_tokens=0, max_new_tokens=max_new_tokens, repeats=1)
    with progress_bar(err) as bar:
        turns = TimedRuns(model, config, bench_watching(bar)).run(cases_of(prompts, config))
    out.print(times_table(turns))
    total = {name: sum(_seconds(turns[case], name) for case in turns) for name in DECODERS}
    answers = [_answers(turns[case]) for case in turns]
    count, same = sum(map(len, answers)), sum(sum(case) for case in answers)
    speeds = (f"{_speed(total[name] / total['planned'])} as {what}" for name, what in COMPARED.items())
    out.print(f"{same} of {count} answers are identical to transformers' own.", highlight=False)
    out.print(f"Planned is {' and '.join(speeds)}.", highlight=False)
    return same == count


def times_table(turns: dict[Case, Turns]) -> Table:
    """Seconds by domain."""
    table = Table("seconds", *DECODERS, "tokens a step", "identical")
    for case, own in turns.items():
        rate = own[Decoder("planned")][-1].tally.tokens_per_step
        same = _answers(own)
        seconds = (f"{_seconds(own, name):.1f}" for name in DECODERS)
        table.add_row(case.domain, *seconds, f"{rate:.2f}", f"{sum(same)} of {len(same)}")
    return table


def _seconds(turns: Turns, name: str) -> float:
    return statistics.median(sum(run.seconds for run in turn.runs) for turn in turns[Decoder(name)])


def _answers(turns: Turns) -> list[bool]:
    """Whether each answer of plain and planned is transformers' own."""
    base = turns[Decoder("transformers")][-1].answers
    own = (turns[Decoder(name)][-1].answers for name in DECODERS[1:])
    return [said == expected for answers in own for said, expected in zip(answers, base)]
