"""The verb `data generate`: the base answers prompts, and its answers become training data.

Rows go to shards, files of so many rows each, written whole and renamed. Until a shard is whole its rows are kept,
batch by batch, in a file beside it. Whoever starts the same command again makes only what is missing, in the same
batches, so that it comes out as it would have.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from foresay.data.chat import at, check_known
from foresay.data.config import DataConfig
from foresay.data.corpus import SHOWN
from foresay.data.example import TEXT_PROMPT_TOKENS
from foresay.data.prompts import Prompt, prompt_of
from foresay.data.records import Record, fatal
from foresay.data.source import Source
from foresay.foundation.errors import DataError, in_words
from foresay.foundation.files import check_outside, put
from foresay.training.config import DistilConfig
from foresay.training.distillation.backend import Answer, AnswerBackend, PromptRow

SETTINGS = "_settings.json"
"""Read back by a later start; files that begin with _ are no data."""
UNFINISHED = "_"
"""Before the name of a shard: its rows so far."""
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
    """Rows that hold no prompt."""
    complaints: list[str] = field(default_factory=list)
    """The first bad rows, with file and line."""
    unread: dict[str, int] = field(default_factory=dict)
    """Rows by what of them the prompt does not hold: columns, and fields and roles of messages; answers apart."""
    too_long: int = 0
    """Prompts that leave no room for an answer, among those tried now."""
    tokens: int = 0
    """Tokens of the answers made now."""


@dataclass(frozen=True, slots=True)
class Distiller:
    """Everything that a run needs."""

    engine: AnswerBackend
    sources: tuple[Source, ...]
    out: Path
    config: DistilConfig = field(default_factory=DistilConfig)
    reading: DataConfig = field(default_factory=DataConfig)

    def run(self, watch: Callable[[Distilled], None] = lambda done: None) -> Distilled:
        """Make what is missing; `watch` is told after each batch.

        Raises DataError for data without a prompt, and for other settings than the folder was begun with, ArtefactError
        for a folder among the data.
        """
        self._claim()
        done = Distilled(str(self.out))
        for number, records in enumerate(self._shards(done)):
            path = self.out / f"shard-{number:06d}.jsonl"
            if path.exists():
                path.with_name(UNFINISHED + path.name).unlink(missing_ok=True)
                with path.open("rb") as file:
                    done.rows += sum(1 for _ in file)
                watch(done)
            else:
                self._make(path, self._prompts(number * self.config.shard_rows, records, done), done, watch)
        if not done.rows:
            first = "; ".join(done.complaints[:1])
            raise DataError(f"the data hold no prompt that can be answered ({done.bad} bad rows; {first}); give others")
        return done

    def _claim(self) -> None:
        """Write down what the folder is for, or see that it is for this."""
        check_outside(self.out, [source.name for source in self.sources])
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
        with in_words(DataError, f"{path} cannot be read", "restore it, or give a new folder", ValueError, TypeError):
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        changed = [
            f"{name} {before.get(name)}, now {value}" for name, value in found.items() if before.get(name) != value
        ]
        if changed:
            raise DataError(f"{self.out} was begun with {'; '.join(changed)}; give the same, or another folder")

    def _shards(self, done: Distilled) -> Iterator[list[Record]]:
        """The records of each shard."""

        def complain(error: DataError) -> None:
            self._complain(error, done)

        records = (record for source in self.sources for record in source.records(complain))
        while some := list(islice(records, self.config.shard_rows)):
            yield some

    def _make(
        self, path: Path, prompts: Mapping[int, Prompt], done: Distilled, watch: Callable[[Distilled], None]
    ) -> None:
        """Write a shard, its rows in the data's order; batches that an earlier start kept are not answered again."""
        unfinished = path.with_name(UNFINISHED + path.name)
        rows = {row["row"]: row for row in _read(unfinished)}
        done.rows += len(rows)
        missing = [PromptRow(number, prompt.ids) for number, prompt in prompts.items() if number not in rows]
        for answers in self.engine.answer(missing):
            rows |= {number: self._row(number, prompts[number], said) for number, said in answers.items()}
            _write(unfinished, _lines(rows.values()))
            done.tokens += sum(len(said.tokens) for said in answers.values())
            done.made += len(answers)
            done.rows += len(answers)
            watch(done)
        _write(path, _lines(rows[number] for number in prompts))
        unfinished.unlink(missing_ok=True)

    def _prompts(self, first: int, records: Sequence[Record], done: Distilled) -> dict[int, Prompt]:
        """The prompts of a shard that can be answered, by their rows."""
        prompts: dict[int, Prompt] = {}
        for number, record in enumerate(records, first):
            try:
                prompt = self._prompt(record)
            except DataError as error:
                self._complain(error, done)
                continue
            for name in prompt.unread:
                done.unread[name] = done.unread.get(name, 0) + 1
            if len(prompt.ids) < self.engine.context:
                prompts[number] = prompt
            else:
                done.too_long += 1
        return prompts

    def _complain(self, error: DataError, done: Distilled) -> None:
        if self.reading.strict:
            fatal(error)
        done.bad += 1
        if len(done.complaints) < SHOWN:
            done.complaints.append(str(error))

    def _prompt(self, record: Record) -> Prompt:
        prompt = prompt_of(record, self.engine.tokenizer, str(record.row.get("domain") or ""))
        with at(record.place):
            check_known(prompt.ids, self.engine.vocabulary)
        return replace(prompt, ids=prompt.ids[: TEXT_PROMPT_TOKENS if prompt.from_text else None])

    def _row(self, number: int, prompt: Prompt, said: Answer) -> Row:
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


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(path: Path) -> list[Row]:
    """The rows of a file; none where there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _write(path: Path, text: str) -> None:
    """A whole file or none."""
    with in_words(DataError, f"{path} could not be written", "what was written before it stands"):
        put(path, text)
