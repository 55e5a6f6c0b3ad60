"""The verb `data generate`: the base answers prompts, and its answers become training data.

Rows go to shards, files of so many rows each, written whole and renamed. Whoever starts the same command again makes
only the shards that are missing, and they come out as they would have.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from foresay.data.config import DataConfig
from foresay.data.example import TEXT_PROMPT_TOKENS
from foresay.data.prompts import Prompt, prompt_of
from foresay.data.records import Record, fatal
from foresay.data.source import Source
from foresay.foundation.errors import DataError
from foresay.foundation.files import put
from foresay.training.config import DistilConfig
from foresay.training.distillation.backend import Asked, Engine, Said

SETTINGS = "_settings.json"
"""Read back by a later start; files that begin with _ are no data."""
Row = dict[str, Any]


@dataclass(slots=True)
class Distilled:
    """What a run made."""

    folder: str
    rows: int = 0
    """Rows of the data that are answered, from earlier starts too."""
    made: int = 0
    """Rows answered now."""
    bad: int = 0
    too_long: int = 0
    """Prompts that leave no room for an answer, among those tried now."""
    tokens: int = 0
    """Tokens of the answers made now."""


@dataclass(frozen=True, slots=True)
class Distiller:
    """Everything that a run needs."""

    engine: Engine
    sources: tuple[Source, ...]
    out: Path
    config: DistilConfig = field(default_factory=DistilConfig)
    reading: DataConfig = field(default_factory=DataConfig)

    def run(self, watch: Callable[[Distilled], None] = lambda done: None) -> Distilled:
        """Make the missing shards; `watch` is told after each.

        Raises DataError for data without a prompt, and for other settings than the folder was begun with.
        """
        self._claim()
        done = Distilled(str(self.out))
        for number, records in enumerate(self._shards(done)):
            path = self.out / f"shard-{number:06d}.jsonl"
            if not path.exists():
                rows = self._answer(number * self.config.shard_rows, records, done)
                _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
                done.made += len(rows)
            with path.open("rb") as file:
                done.rows += sum(1 for _ in file)
            watch(done)
        if not done.rows:
            raise DataError(f"the data hold no prompt that can be answered ({done.bad} bad rows); give others")
        return done

    def _claim(self) -> None:
        """Write down what the folder is for, or see that it is for this."""
        data = {"data": [source.describe() for source in self.sources]}
        asked = self.engine.identity() | data | asdict(self.config) | asdict(self.reading)
        found = json.loads(json.dumps(asked))
        path = self.out / SETTINGS
        if not path.exists():
            # What a kill before the rename left is ours.
            unfinished = set(self.out.glob(f".{path.name}.*"))
            if self.out.exists() and (not self.out.is_dir() or set(self.out.iterdir()) - unfinished):
                raise DataError(f"{self.out} holds something else; give a new folder, or one that this verb began")
            _write(path, json.dumps(found, indent=2))
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}); restore it, or give a new folder") from error
        changed = [
            f"{name} {before.get(name)}, now {value}" for name, value in found.items() if before.get(name) != value
        ]
        if changed:
            raise DataError(f"{self.out} was begun with {'; '.join(changed)}; give the same, or another folder")

    def _shards(self, done: Distilled) -> Iterator[list[Record]]:
        """The records of each shard."""

        def complain(error: DataError) -> None:
            done.bad += 1
            if self.reading.strict:
                fatal(error)

        records = (record for source in self.sources for record in source.records(complain))
        while some := list(islice(records, self.config.shard_rows)):
            yield some

    def _answer(self, first: int, records: Sequence[Record], done: Distilled) -> list[Row]:
        """Rows of a shard, in the data's order."""
        prompts: dict[int, Prompt] = {}
        for number, record in enumerate(records, first):
            try:
                prompt = self._prompt(record)
            except DataError:
                if self.reading.strict:
                    raise
                done.bad += 1
                continue
            if len(prompt.ids) < self.engine.context:
                prompts[number] = prompt
            else:
                done.too_long += 1
        said = self.engine.answer([Asked(number, prompt.ids) for number, prompt in prompts.items()])
        done.tokens += sum(len(answer.tokens) for answer in said.values())
        return [self._row(number, prompt, said[number]) for number, prompt in prompts.items()]

    def _prompt(self, record: Record) -> Prompt:
        prompt = prompt_of(record, self.engine.tokenizer, str(record.row.get("domain") or ""))
        return replace(prompt, ids=prompt.ids[: TEXT_PROMPT_TOKENS if prompt.from_text else None])

    def _row(self, number: int, prompt: Prompt, said: Said) -> Row:
        """Token ids, which training takes as they are, and text for a reader."""
        return {
            "row": number,
            "prompt": prompt.text,
            "response": self.engine.tokenizer.decode(said.tokens, skip_special_tokens=True),
            "domain": prompt.domain,
            "ended": said.ended,
            "prompt_tokens": len(prompt.ids),
            "ids": [*prompt.ids, *said.tokens],
        }


def _write(path: Path, text: str) -> None:
    """A whole file or none."""
    try:
        put(path, text)
    except OSError as error:
        raise DataError(f"{path} could not be written ({error}); the shards before it stand") from error
