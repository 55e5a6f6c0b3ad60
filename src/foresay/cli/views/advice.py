"""Advice as tables."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foresay.cli.views.tables import plain_table
from foresay.evaluation.speed.advise import Advice


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
    table.add_row("best / plain", "", "", *(f"{offer.speedup:.2f}  " for offer in own), style="bold")
    return table


def _notes(advice: Advice) -> Text:
    lines = [f"< best. Acceptance is {advice.assumed_from}:"]
    for domain, shares in advice.acceptance.items():
        lines.append(f"  {domain}: " + ", ".join(f"{share:.0%}" for share in shares))
    for context in dict.fromkeys(offer.context_tokens for offer in advice.offers):
        said = []
        for domain in advice.acceptance:
            sizes = advice.pays_at(domain, context)
            sized = ", ".join(map(str, sizes))
            said.append(f"{domain} at batch {sized}" if sizes else f"{domain} at no batch size")
        lines.append(f"Drafts are expected to pay, with {context} tokens cached: {'; '.join(said)}.")
    training = advice.training
    lines.append(
        f"Training takes {training.seconds_per_step:.2f} s a step here: {training.steps} steps, "
        f"{training.seconds / 60:.0f} minutes."
    )
    return Text("\n".join(lines), style="dim")
