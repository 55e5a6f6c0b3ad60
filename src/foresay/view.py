"""What a person sees in the terminal: a live view of training, tables, tokens coloured by step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from foresay.adapt import News
from foresay.benchmark import TRANSFORMERS, Bench, Result
from foresay.check import Certificate
from foresay.decoding.session import Step
from foresay.preview import Preview, Shown

COLOURS = ("bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "bright_blue", "bright_red")
"""Steps take them in turn; neighbours always differ."""


def progress_bar(console: Console) -> Progress:
    """A bar that vanishes when the work is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class TrainingView:
    """Steps, loss parts and tokens per step, redrawn in place; on a plain stream a line now and then."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps = console, steps
        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps)
        self._live: Live | None = None
        self._last = 0

    @contextmanager
    def showing(self) -> Iterator["TrainingView"]:
        """Draw while the block runs, from the first step on."""
        try:
            yield self
        finally:
            if self._live is not None:
                self._live.stop()

    def tell(self, news: News) -> None:
        """Show the state after a step."""
        progress = news.progress
        self._bar.update(self._task, completed=progress.step)
        lines = Group(self._bar, self._losses(news), self._decodes(news))
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(lines, console=self._console, refresh_per_second=4)
                self._live.start()
            self._live.update(lines)
        elif progress.step - self._last >= max(self._steps // 10, 1) or progress.step == self._steps:
            self._last = progress.step
            self._console.print(f"step {progress.step}/{self._steps}", self._losses(news), self._decodes(news))

    def _losses(self, news: News) -> Text:
        progress = news.progress
        parts = {
            "base": progress.losses.base,
            "sampler": progress.losses.sampler,
            "consistency": progress.losses.consistency,
        }
        figures = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
        return Text(f"loss {progress.losses.total:.3f}  ({figures})  rate {progress.learning_rate:.1e}")

    def _decodes(self, news: News) -> Text:
        if not news.tokens_per_step:
            return Text("tokens per step: not decoded yet", style="dim")
        figures = "  ".join(f"{domain} {value:.2f}" for domain, value in news.tokens_per_step.items())
        return Text(f"tokens per step, decoded for real on held-out prompts: {figures}", style="bold")


def coloured(tokenizer: PreTrainedTokenizerBase, steps: Sequence[Step]) -> Text:
    """An answer with the tokens of each step in one colour."""
    text, shown = Text(), ""
    said: list[int] = []
    for number, step in enumerate(steps):
        said += step.tokens
        whole = tokenizer.decode(said, skip_special_tokens=True)
        # A token may be part of a character; it shows with the step that completes it.
        if not whole.endswith("�") or step is steps[-1]:
            text.append(whole[len(shown) :], style=COLOURS[number % len(COLOURS)])
            shown = whole
    return text


def loss_text(tokenizer: PreTrainedTokenizerBase, shown: Shown) -> Text:
    """A training example: what carries loss green in ⟦ ⟧, ▾ behind the tokens that a block hangs on."""
    text, anchors = Text(), set(shown.anchors)
    answer = shown.example.answer
    for place, token in enumerate(shown.example.ids):
        style = "green" if answer[place] else "dim"
        if answer[place] and not (place and answer[place - 1]):
            text.append("⟦", style="bold")
        word = tokenizer.decode([token]).replace("\n", "⏎\n")
        text.append(word, style=f"{style} underline" if place in anchors else style)
        if place in anchors:
            text.append("▾", style="bold yellow")
        if answer[place] and not any(answer[place + 1 : place + 2]):
            text.append("⟧", style="bold")
    return text


def preview_lines(seen: Preview) -> Iterator[str]:
    """The statistics of a preview, and what its marks mean."""
    if seen.shown:
        yield "⟦green⟧ carries loss; a block of masks hangs behind every ▾ (anchors are drawn anew in each epoch)"
    for report in seen.reports:
        yield report.sentence
        yield from (f"  bad: {complaint}" for complaint in report.complaints[1:])
    yield "sequence length in tokens: " + ", ".join(f"{name} {tokens}" for name, tokens in seen.lengths.items())
    if set(seen.domains) != {""}:
        yield "sequences by domain: " + ", ".join(f"{name or '(none)'} {n}" for name, n in seen.domains.items())


def bench_table(bench: Bench) -> Table:
    """Every result, domain by domain."""
    table = Table(
        title=f"batch {bench.results[0].batch_size}, {bench.results[0].dtype}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("domain", "decoder", "masks"):
        table.add_column(heading, no_wrap=heading == "decoder")
    for heading in (
        "tokens/step",
        "tokens/s",
        "(min-max)",
        "x plain",
        "x transformers",
        "efficiency",
        "identical",
        "4-gram",
    ):
        table.add_column(heading, justify="right")
    previous = ""
    for result in bench.results:
        if result.domain != previous and previous:
            table.add_section()
        table.add_row("" if result.domain == previous else result.domain, *_bench_row(result))
        previous = result.domain
    table.caption = "4-gram: share of repeated 4-grams in the base's own output; loops make drafting easier"
    return table


def _bench_row(result: Result) -> list[str]:
    low, high = result.tokens_per_second_spread
    foreign = result.decoder == TRANSFORMERS
    return [
        result.decoder,
        str(result.masks or ""),
        "" if foreign else f"{result.tokens_per_step:.2f}",
        f"{result.tokens_per_second:.0f}",
        f"{low:.0f}-{high:.0f}",
        f"{result.speedup_vs_plain:.2f}",
        f"{result.speedup_vs_transformers:.2f}",
        "" if foreign else f"{result.efficiency:.2f}",
        f"{result.identical} of {result.prompts}",
        f"{result.repeated_4grams:.0%}",
    ]


def divergence_table(certificate: Certificate) -> Table:
    """Every divergence with its verdict."""
    table = Table(title="first divergences", title_justify="left")
    for heading in ("prompt", "layout", "position", "plain", "accelerated", "margin", "bound", "in float32", "verdict"):
        table.add_column(heading)
    for found in certificate.divergences:
        table.add_row(
            f"{found.domain} {found.prompt}",
            found.layout,
            str(found.position),
            str(found.plain_token),
            str(found.accelerated_token),
            f"{found.margin:.2e}",
            f"{found.bound:.2e}",
            "differs" if found.diverges_in_float32 else "equal",
            found.verdict,
        )
    return table
