"""Benchmarks as prompts: local files and hub datasets of the usual schemas, each with its domain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.data.prompts import Prompt, prompt_of
from foresay.data.records import Record
from foresay.data.source import Source
from foresay.foundation.errors import ConfigError, DataError

PAPER = "paper"
"""Stands for the benchmarks of paper A, Table 1, that the hub has in a form that needs no code of its own."""
NAMED = {
    PAPER: (
        "knowledge=cais/mmlu,subset=all,split=test",
        "knowledge=akariasai/PopQA,split=test",
        "knowledge=truthfulqa/truthful_qa,subset=generation,split=validation",
        "math=openai/gsm8k,subset=main,split=test",
        "code=openai/openai_humaneval,split=test",
        "chat=google/IFEval,split=train",
        "safety=walledai/XSTest,split=test",
        "safety=walledai/HarmBench,subset=standard,split=train",
        "safety=allenai/wildguardmix,subset=wildguardtest,split=test",
        "safety=allenai/wildjailbreak,subset=eval,split=train,prompt=adversarial",
    )
}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One set of prompts with the domain that it is counted to."""

    domain: str
    source: Source

    @classmethod
    def parse(cls, text: str) -> "Benchmark":
        """`DOMAIN=SOURCE`, with settings as `Source.parse` reads them. Raises ConfigError."""
        domain, sign, source = text.partition("=")
        if not sign or not source or any(mark in domain for mark in "/,."):
            raise ConfigError(
                f"benchmark {text!r} has no domain; give DOMAIN=FILE or DOMAIN=HUB/ID (math=gsm8k.jsonl), or one of "
                f"{', '.join(NAMED)}"
            )
        return cls(domain, Source.parse(source))

    @property
    def name(self) -> str:
        """The file's name without its ending, or the last part of the hub id."""
        path = Path(self.source.name)
        return path.name if self.source.on_hub else path.stem

    def prompts(self, tokenizer: PreTrainedTokenizerBase, most: int) -> list[Prompt]:
        """At most `most` prompts (0: all), taken evenly from first to last. Raises DataError."""
        records = [_asked(record) for record in self.source.records()]
        if not records:
            raise DataError(f"{self.source.name} has no rows; give a benchmark with a prompt a row")
        some = [records[i * len(records) // most] for i in range(most)] if 0 < most < len(records) else records
        return [replace(prompt_of(record, tokenizer, self.domain), benchmark=self.name) for record in some]


def benchmarks_of(texts: Sequence[str]) -> list[Benchmark]:
    """What the command line names: `DOMAIN=SOURCE`, or a named set. Raises ConfigError."""
    return [Benchmark.parse(text) for given in texts for text in NAMED.get(given, (given,))]


def _asked(record: Record) -> Record:
    """A question with choices asks with them; a list of turns asks its first."""
    row = record.row
    if isinstance(row.get("turns"), list) and row["turns"]:
        return Record(record.place, row | {"prompt": row["turns"][0]})
    choices = _choices(row.get("choices"))
    if not choices or not isinstance(row.get("question"), str):
        return record
    lines = [row["question"], *(f"{label}. {text}" for label, text in choices)]
    return Record(record.place, row | {"prompt": "\n".join(lines)})


def _choices(choices: Any) -> list[tuple[str, str]]:
    """Labels and texts, as ARC (`text` and `label`) and MMLU (a list) write them."""
    if isinstance(choices, dict):
        return list(zip(choices.get("label") or (), choices.get("text") or ()))
    return list(zip("ABCDEFGHIJ", choices)) if isinstance(choices, list) else []
