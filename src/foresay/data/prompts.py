"""Prompts to decode: from a file, or the embedded held-out ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from foresay.data.chat import at, encode, text_ids
from foresay.data.columns import PROMPT_COLUMNS, columns_of, conversation, unread_columns
from foresay.data.records import Record, read_records
from foresay.foundation.errors import DataError
from foresay.foundation.names import NANO

EMBEDDED = Path(__file__).with_name("embedded_prompts")
DOMAINS = ("math", "code", "stories", "chat")
"""Of the prompts for nano, and for models without a chat template."""
FIVE_DOMAINS = ("math", "code", "chat", "knowledge", "safety")
"""Of the prompts for every other model."""
Split = Literal["dev", "test", "all"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, ready to decode."""

    ids: tuple[int, ...]
    domain: str
    text: str
    """As a person would read it."""
    benchmark: str = ""
    """Set that it is from, where it is from one."""
    from_text: bool = False
    """Its row had nothing but `text`: a text to go on with, whose beginning is prompt enough."""
    unread: tuple[str, ...] = ()
    """Columns, and fields and roles of messages, that the prompt does not hold; answers are none of them."""


def embedded_prompts(tokenizer: PreTrainedTokenizerBase, split: Split, most: int, base: str = NANO) -> list[Prompt]:
    """At most `most` held-out prompts of each domain: those for the base called `base`, which no adapter saw.

    `nano`, and a model without a chat template, get easy questions and openings of stories; any other model gets
    questions of eight benchmarks in five domains.
    """
    five = base != NANO and tokenizer.chat_template is not None
    folder = EMBEDDED / ("five_domains" if five else "")
    domains = FIVE_DOMAINS if five else DOMAINS
    chosen = []
    for domain in domains:
        records = [
            record for record in read_records(folder / f"{domain}.jsonl") if split in ("all", record.row["split"])
        ]
        chosen += [_of_benchmark(record, tokenizer, domain) for record in records[:most]]
    return chosen


def file_prompts(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """Every prompt of a file: `messages`, `prompt` (or question, instruction) or `text`; perhaps `domain`, `benchmark`.

    Raises DataError, with file and line.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give one file with a prompt a row")
    prompts = []
    for record in read_records(path):
        prompts.append(_of_benchmark(record, tokenizer, str(record.row.get("domain", path.stem))))
    if not prompts:
        raise DataError(f"{path} is empty; give one prompt a row")
    return prompts


def unread_of(prompts: Sequence[Prompt]) -> str:
    """What of the rows the prompts do not hold, by name, in a sentence; empty where there is nothing to say."""
    counts = Counter(name for prompt in prompts for name in prompt.unread)
    said = ", ".join(f"{name} ({count} rows)" for name, count in sorted(counts.items()))
    return f"of the prompts' rows not used: {said}" if said else ""


def _of_benchmark(record: Record, tokenizer: PreTrainedTokenizerBase, domain: str) -> Prompt:
    """The prompt of a row that may say which benchmark it is from."""
    return replace(prompt_of(record, tokenizer, domain), benchmark=str(record.row.get("benchmark", "")))


def by_domain(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """The prompts of each domain, in order."""
    domains: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        domains.setdefault(prompt.domain, []).append(prompt)
    return domains


def first_of_each_domain(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most `most` prompts of each domain, the first ones, in their order."""
    seen: Counter[str] = Counter()
    kept = []
    for prompt in prompts:
        seen[prompt.domain] += 1
        if seen[prompt.domain] <= most:
            kept.append(prompt)
    return kept


def lengthened(prompts: Sequence[Prompt], tokens: int) -> list[Prompt]:
    """The prompts with other text in front, so that each has `tokens` tokens and its own text comes last.

    The text in front is the other prompts of the list in turn (the own one where there is no other), over and over,
    its beginning cut off. A prompt that has as many tokens already stays as it is.
    """
    longer = []
    for index, prompt in enumerate(prompts):
        others = [*prompts[index + 1 :], *prompts[:index]] or [prompt]
        text = [token for other in others for token in other.ids]
        missing = max(tokens - len(prompt.ids), 0)
        front = (text * (missing // len(text) + 1))[-missing:] if missing else []
        longer.append(replace(prompt, ids=(*front, *prompt.ids)))
    return longer


def prompt_of(record: Record, tokenizer: PreTrainedTokenizerBase, domain: str) -> Prompt:
    """The prompt of a row: its messages before the last answer, its question, or its text.

    Raises DataError, with file and line.
    """
    row = record.row
    with at(record.place):
        chat = conversation(record, answers=False)
        if chat is not None:
            asked = chat.asked
            if not asked.messages:
                raise DataError("there is no message before the answer; begin with a user's message")
            unread = unread_columns(row, chat.columns, answers=False) + asked.unread(tokenizer)
            # An embedded story opening is text to go on with, not a message.
            if tokenizer.chat_template is None or domain == "stories":
                bare = "\n".join(message["content"] for message in asked.messages)
                return Prompt(tuple(text_ids(tokenizer, bare)), domain, bare, unread=tuple(unread))
            ids = asked.ids(tokenizer, prompt=True)
            return Prompt(tuple(ids), domain, asked.messages[-1]["content"], unread=tuple(unread))
        text = row.get("text")
        if not isinstance(text, str):
            raise DataError(
                f"it has columns {columns_of(row)}; needed are messages, text, or one of {', '.join(PROMPT_COLUMNS)}"
            )
        unread = unread_columns(row, ("text",), answers=False)
        return Prompt(tuple(encode(tokenizer, text, raw=True)), domain, text, from_text=True, unread=tuple(unread))
