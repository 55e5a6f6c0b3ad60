"""Advice as tables."""

from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foresay.cli.views.tables import plain_table
from foresay.evaluation.speed.advise import Advice, Offer
from foresay.evaluation.speed.bench import RATIO_RULE
from foresay.foundation.heartbeat import span

NO_INTERVAL = "-"


def advice_view(advice: Advice) -> Group:
    """A table for each batch size and context length, then who should draft up to where, and what training takes."""
    cells = dict.fromkeys((offer.context_tokens, offer.batch_size) for offer in advice.offers)
    tables = [_expected(advice, *cell) for cell in cells]
    spaced: list[RenderableType] = [part for table in tables for part in (table, "")]
    return Group(*spaced, _notes(advice))


def _expected(advice: Advice, context: int, size: int) -> Table:
    own = [offer for offer in advice.offers if (offer.context_tokens, offer.batch_size) == (context, size)]
    title = f"expected tokens/s, batch {size}, {context} tokens cached"
    table = plain_table(title, "layout", "rows", "ms/step", *(offer.domain for offer in own))
    for place, entry in enumerate(own[0].entries):
        figures = [offer.entries[place] for offer in own]
        marked = [
            f"{figure.tokens_per_second:.0f}{' <' if figure == offer.best else '  '}"
            for figure, offer in zip(figures, own)
        ]
        table.add_row(entry.label, str(entry.rows), f"{1000 * entry.drafted_seconds:.2f}", *marked)
    table.add_row("drafts / plain", "", "", *(f"{median(offer.speedups):.2f}  " for offer in own), style="bold")
    table.add_row("95 %", "", "", *(_interval(offer) for offer in own))
    return table


def _interval(offer: Offer) -> str:
    return f"{NO_INTERVAL}  " if offer.interval is None else f"{offer.interval[0]:.2f}-{offer.interval[1]:.2f}  "


def _sizes(advice: Advice, domain: str, context: int) -> str:
    """At which batch sizes drafts pay, or may, in words."""
    surely, perhaps = (", ".join(map(str, advice.sizes(domain, context, pays))) for pays in (True, None))
    said = [f"at batch {surely}"] if surely else []
    said += [f"too close to tell at {perhaps}"] if perhaps else []
    return ", ".join(said) or "at no batch size"


def _notes(advice: Advice) -> Text:
    lines = [
        "< best: drafts where they surely pay, else plain. Drafts / plain: of the best",
        f"layout with drafts. {RATIO_RULE}",
        f"Acceptance is {advice.assumed_from}:",
    ]
    for domain, shares in advice.acceptance.items():
        lines.append(f"  {domain}: " + ", ".join(f"{share:.0%}" for share in shares))
    for context in dict.fromkeys(offer.context_tokens for offer in advice.offers):
        said = [f"{domain} {_sizes(advice, domain, context)}" for domain in advice.acceptance]
        lines.append(f"With {context} tokens cached, drafts are expected to pay: {'; '.join(said)}.")
    if any(offer.interval is None for offer in advice.offers):
        lines.append(f"{NO_INTERVAL} no interval, for there were too few rounds: give more --seconds.")
    training = advice.training
    lines.append(
        f"Training takes {training.seconds_per_step:.2f} s a step here: {training.steps} steps, "
        f"{span(training.seconds)}."
    )
    return Text("\n".join(lines), style="dim")
