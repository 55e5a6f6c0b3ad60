"""What a run trains on: sources read, counted, cached as tokens, split and mixed by weight."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.source import Source
from foresay.data.token_cache import cached, key
from foresay.foundation.errors import DataError, LossMaskError

SHOWN = 5
"""Bad rows that a report quotes."""


@dataclass(slots=True)
class Report:
    """What became of the rows of one source."""

    name: str
    method: str
    """How loss is kept to the assistant's tokens of a chat."""
    rows: int = 0
    schemas: dict[str, int] = field(default_factory=dict)
    """Usable rows by what they were taken for: messages, prompt/response, text, ids."""
    bad: int = 0
    complaints: list[str] = field(default_factory=list)
    """The first bad rows, with file and line."""
    unread: dict[str, int] = field(default_factory=dict)
    """Rows by what of them was not used: columns, and fields and roles of messages that the template leaves out."""
    too_short: int = 0
    """Rows left out because no two answer tokens remain within the length."""
    cut: int = 0
    """Rows that lost tokens to the length."""
    examples: int = 0
    tokens: int = 0
    loss_tokens: int = 0

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        taken = ", ".join(f"{count} {schema}" for schema, count in self.schemas.items())
        said = (
            f"{self.name}: {self.rows} rows ({taken or 'none usable'}; {self.method}), {self.examples} sequences, "
            f"{self.tokens} tokens, {self.loss_tokens} with loss"
        )
        counts = {"cut at the length": self.cut, "left out, answer too short": self.too_short, "bad": self.bad}
        told = [f"{count} {what}" for what, count in counts.items() if count]
        unread = ", ".join(f"{name} ({count} rows)" for name, count in sorted(self.unread.items()))
        return "; ".join([said, *told, *([f"not used: {unread}"] if unread else []), *self.complaints[:1]])

    def check(self, max_length: int) -> None:
        """Raise DataError when not one example came out."""
        if not self.rows:
            raise DataError(f"{self.name} is empty; give a file with chat, prompt/response or text rows")
        if self.bad and not self.examples:
            bad = "" if self.bad == self.rows else f"{self.bad} are bad, the others too short; "
            first = f"{bad}the first: {self.complaints[0]}"
            raise DataError(f"none of the {self.rows} rows of {self.name} can be used; {first}")
        if not self.examples:
            cure = (
                "raise --max-length (up to the base's context) or shorten the prompts"
                if self.cut
                else "its answers are empty or a single token: give longer ones"
            )
            raise DataError(
                f"none of the {self.rows} rows of {self.name} has two answer tokens within {max_length} tokens; {cure}"
            )


@dataclass(frozen=True, slots=True)
class Part:
    """One source, read."""

    examples: Sequence[Example]
    report: Report
    described: dict[str, Any]
    """The source, by the hashes of its content."""
    weight: float | None = None


def encoded(source: Source, encoder: Encoder, report: Report, strict: bool) -> Iterator[Example]:
    """The examples of a source, row by row, counted in `report`. Raises DataError; with `strict` for any bad row."""

    def complain(error: DataError) -> None:
        if strict or isinstance(error, LossMaskError):
            raise error
        report.rows += 1
        report.bad += 1
        if len(report.complaints) < SHOWN:
            report.complaints.append(str(error))

    for record in source.records(complain):
        try:
            row = encoder.encode(record)
        except DataError as error:
            complain(error)
            continue
        report.rows += 1
        report.cut += row.cut
        report.too_short += not row.examples
        for name in row.unread:
            report.unread[name] = report.unread.get(name, 0) + 1
        if row.examples:
            report.schemas[row.schema] = report.schemas.get(row.schema, 0) + 1
        for example in row.examples:
            report.examples += 1
            report.tokens += len(example.ids)
            report.loss_tokens += sum(example.carries)
            yield example


def read(source: Source, encoder: Encoder, strict: bool = False) -> Part:
    """Every example of a source: tokenised now, or from the cache. Raises DataError."""
    described = source.describe()
    content = {name: value for name, value in described.items() if name != "weight"}
    report = Report(source.name, encoder.method)

    def make() -> Iterator[Example]:
        yield from encoded(source, encoder, report, strict)
        report.check(encoder.max_length)

    store = cached(key(content, encoder), make, lambda: {"report": asdict(report)})
    report = Report(**store.facts["report"])
    if strict and report.bad:
        raise DataError(report.complaints[0])
    return Part(store, report, described, source.weight)
