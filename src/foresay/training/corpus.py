"""What a run trains on: sources read, counted, cached as tokens, split and mixed by weight."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from foresay.errors import DataError, MaskError
from foresay.training.data import Encoder, Example, Examples
from foresay.training.source import Source
from foresay.training.token_cache import cached, key

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
        return "; ".join([said, *told, *self.complaints[:1]])

    def check(self, max_length: int) -> None:
        """Raise DataError when not one example came out."""
        if not self.rows:
            raise DataError(f"{self.name} is empty; give a file with chat, prompt/response or text rows")
        if self.bad == self.rows:
            raise DataError(f"none of the {self.rows} rows of {self.name} can be used; the first: {self.complaints[0]}")
        if not self.examples:
            raise DataError(
                f"none of the {self.rows} rows of {self.name} has two answer tokens within {max_length} tokens; raise "
                "--max-length (up to the base's context) or shorten the prompts"
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
        if strict or isinstance(error, MaskError):
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


@dataclass(frozen=True, slots=True)
class Mixture(Examples):
    """Examples of several parts as one sequence."""

    parts: tuple[Sequence[Example], ...]
    places: np.ndarray[Any, np.dtype[np.int64]]
    """(N, 2) int64: part and index in it."""

    def __len__(self) -> int:
        return len(self.places)

    def at(self, place: int) -> Example:
        """The example there, of the part it is in."""
        part, own = map(int, self.places[place])
        return self.parts[part][own]


def split(parts: Sequence[Part], heldout: int, seed: int) -> tuple[Mixture, Mixture]:
    """Training examples, mixed by weight, and `heldout` others, at most a fifth of all.

    Held-out examples are taken away first, so that no repetition brings them back. Raises DataError for fewer than 2.
    """
    sizes = [len(part.examples) for part in parts]
    total = sum(sizes)
    if total < 2:
        raise DataError(f"the data holds {total} usable example; give at least 2, one to train and one to test")
    owner = np.repeat(np.arange(len(parts)), sizes)
    index = np.concatenate([np.arange(size) for size in sizes])
    shuffled = np.array(random.Random(seed).sample(range(total), total))
    places = np.stack((owner, index), axis=1)[shuffled].astype(np.int64)
    cut = min(heldout, max(total // 5, 1)) if heldout else 0
    examples = tuple(part.examples for part in parts)
    mixed = mix(places[cut:], [part.weight for part in parts], seed)
    return Mixture(examples, mixed), Mixture(examples, places[:cut])


def mix(
    places: np.ndarray[Any, np.dtype[np.int64]], weights: Sequence[float | None], seed: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Repeat `places` (N, 2) of small parts until the shares are as weighted; every place stays at least once.

    Without any weight nothing is repeated; beside a weight, a part without one has weight 1.
    """
    if not any(weights):
        return places
    groups = [places[places[:, 0] == part] for part in range(len(weights))]
    shares = [weight or 1.0 for weight in weights]
    unit = max(len(group) / share for group, share in zip(groups, shares))
    chance = np.random.default_rng(seed)
    chosen = []
    for group, share in zip(groups, shares):
        wanted = round(unit * share) if len(group) else 0
        rest = chance.permutation(len(group))[: wanted % max(len(group), 1)]
        chosen += [group] * (wanted // max(len(group), 1)) + [group[rest]]
    return np.concatenate(chosen)
