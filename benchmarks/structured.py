"""Structured output: tokens per step under a JSON schema and without, answers that are plain decoding's, forced tokens.

    python benchmarks/structured.py smollm2 --masks 3 --out smollm2-structured.json
    python benchmarks/structured.py --show smollm2-structured.json

Prompts that ask for JSON are answered under their schema and free; held-out prompts free and under a grammar that
allows every text. All is greedy. A token is *forced* where the grammar leaves one text to go on with. Counts alone, no
seconds. `vllm_structured.py` asks vLLM the same.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foresay import DecodeConfig, MultiTokenModel, StructuredOutputs
from foresay.data.asked import prompt_ids
from foresay.data.prompts import embedded_prompts
from foresay.evaluation.acceptance import Rate
from foresay.foundation.provenance import provenance

Schema = dict[str, Any]
Ids = Sequence[int]
Form = StructuredOutputs | None


def words(most: int) -> Schema:
    return {"type": "string", "maxLength": most}


def number(most: int) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most}


def record(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def several(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": 3}


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ASKED: dict[str, tuple[Schema, tuple[str, ...]]] = {
    "person": (
        record(name=words(24), age=number(120), city=words(24), married={"type": "boolean"}),
        (
            "Anna is 34 years old, lives in Lisbon and is married.",
            "My neighbour Tom, 61, never married. He moved to Oslo last year.",
            "At 19, Mei left her parents' house for a flat in Taipei.",
            "Karl and his wife celebrated his 45th birthday at home in Graz.",
            "Born 28 years ago in Accra, Kofi still lives there, alone with his dog.",
        ),
    ),
    "order": (
        record(items=several(record(product=words(24), count=number(99))), paid={"type": "boolean"}),
        (
            "I would like two pounds of apples and a loaf of bread; I have paid by card.",
            "Please send 12 pencils and 3 notebooks, I will pay when they come.",
            "One ticket for the museum, paid online.",
            "We need four chairs, one table and six cups. The bill is still open.",
            "The customer took a bottle of milk and ten eggs and paid in cash.",
        ),
    ),
    "event": (
        record(title=words(32), day={"enum": DAYS}, hour=number(23), place=words(24)),
        (
            "The chess club meets on Tuesday at 7 pm in the library.",
            "Choir practice is at the town hall this Friday, 18:00.",
            "Do not forget the dentist on Monday morning at nine, Main Street 5.",
            "Sunday at noon we have lunch at grandmother's house.",
            "The market in the harbour opens on Saturday at 6 in the morning.",
        ),
    ),
    "sum": (
        record(steps=several(words(48)), answer=number(9999)),
        (
            "Tom has 3 boxes with 4 pens each. How many pens does he have?",
            "A bus has 40 seats and 13 are free. How many are taken?",
            "Eggs cost 3 dollars a dozen. What do 5 dozen cost?",
            "Lena reads 15 pages a day. How many pages does she read in a week?",
            "A rope of 90 metres is cut into 6 equal parts. How long is each?",
        ),
    ),
}
"""Schemas, and texts that are to be put in their form."""
EVERYTHING = StructuredOutputs(regex=r"(.|\n)*")
UNDER, FREE = "under the schema", "free"


@dataclass(frozen=True, slots=True)
class Row:
    """Some prompts in one way."""

    prompts: str
    """Name of their schema, or `held-out`."""
    how: str
    count: int
    tokens: int
    steps: int
    tokens_per_step: Rate
    identical: int
    """Answers that are plain decoding's, token for token, under the same grammar."""
    whole: int | None
    """Answers that ended by themselves and are JSON; None: no schema."""
    forced: float | None
    """Share of tokens at places where the grammar left one text to go on with; None: no grammar."""


def asked_for(name: str) -> list[str]:
    """The prompts for one schema."""
    schema, texts = ASKED[name]
    keys = ", ".join(schema["properties"])
    return [f"{text}\n\nAnswer with a JSON object that has {keys}, and nothing else." for text in texts]


def held_to(name: str) -> StructuredOutputs:
    """No white space: a small model may write nothing else where it is allowed."""
    return StructuredOutputs(json=ASKED[name][0], disable_any_whitespace=True)


def forced(model: MultiTokenModel, structured: StructuredOutputs, answers: Sequence[Ids]) -> float:
    """Share of the tokens of `answers` before which the grammar left one text to go on with."""
    grammar = model.grammar(structured)
    assert grammar is not None
    places = 0
    for answer in answers:
        constraint = grammar.constraint(0)
        places += sum(bool(constraint.forced(answer[:place], 1)) for place in range(len(answer)))
    return places / sum(map(len, answers))


def is_whole(text: str) -> bool:
    """It is JSON from its first to its last character."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def row(
    model: MultiTokenModel,
    name: str,
    prompts: Sequence[Ids],
    structured: StructuredOutputs | None,
    decode: DecodeConfig,
) -> Row:
    """These prompts, drafted and plain."""
    said = model.answer(prompts, decode, structured=structured)
    plain = model.answer(prompts, decode, structured=structured, layout="plain")
    under = structured is not None and structured.json is not None
    tokens = [answer.tokens for answer in plain]
    return Row(
        prompts=name,
        how=UNDER if under else FREE if structured is None else "under a grammar of every text",
        count=len(prompts),
        tokens=sum(len(answer.tokens) for answer in said),
        steps=sum(len(answer.steps) for answer in said),
        tokens_per_step=Rate.of(said),
        identical=sum(one.tokens == other for one, other in zip(said, tokens)),
        whole=sum(answer.ended == "stop" and is_whole(answer.text) for answer in said) if under else None,
        forced=forced(model, structured, tokens) if under and structured is not None else None,
    )


def ids_of(model: MultiTokenModel, texts: Sequence[str]) -> list[list[int]]:
    """The texts as chats."""
    ids, _ = prompt_ids(list(texts), model.require_tokenizer, raw=False)
    return [list(some) for some in ids]


def ours(model: MultiTokenModel, decode: DecodeConfig, per_domain: int) -> Iterator[Row]:
    """Every row of our own engine."""
    for name in ASKED:
        prompts = ids_of(model, asked_for(name))
        yield row(model, name, prompts, held_to(name), decode)
        yield row(model, name, prompts, None, decode)
    held_out = embedded_prompts(model.require_tokenizer(), "test", per_domain, model.base_name)
    for structured in (None, EVERYTHING):
        yield row(model, "held-out", [prompt.ids for prompt in held_out], structured, decode)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A markdown table."""
    print("| prompts | how | tokens a step | as plain decoding | whole JSON | forced |\n|---|---|---|---|---|---|")
    for one in rows:
        rate, count = one["tokens_per_step"], one["count"]
        whole = "" if one["whole"] is None else f"{one['whole']} of {count}"
        share = "" if one["forced"] is None else f"{one['forced']:.0%}"
        said = f"{rate['value']:.2f} ({rate['low']:.2f} to {rate['high']:.2f})"
        print(f"| {one['prompts']} | {one['how']} | {said} | {one['identical']} of {count} | {whole} | {share} |")


def options(about: str | None) -> argparse.ArgumentParser:
    """What each script about structured output is told."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--show", type=Path, help="print the table of a result instead")
    return parser


def main() -> None:
    parser = options(__doc__)
    for name, default in (("--masks", 3), ("--per-domain", 4)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    if given.show:
        show(json.loads(given.show.read_text())["rows"])
        return
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    decode = DecodeConfig(layout="quadratic", masks=given.masks, max_new_tokens=given.tokens)
    rows = [asdict(one) for one in ours(model, decode, given.per_domain)]
    settings = asdict(decode) | {"per_domain": given.per_domain}
    if given.out:
        report = {"rows": rows, "provenance": provenance(**model.described, **settings)}
        given.out.write_text(json.dumps(report, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
