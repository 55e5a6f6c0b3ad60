"""vLLM's own structured outputs, plain, with our masks and with our draft model, on the prompts of `structured.py`.

    python benchmarks/vllm_structured.py smollm2 --out vllm-structured.json

Greedy, in float32. Every answer is compared with vLLM's own plain one, and with our plain decoding, under the same
schema; with llguidance as vLLM's backend, which is ours too, both are the same. A pass is one output of vLLM for one
request; the draft model runs once more beside each. Counts alone, no seconds. Needs vLLM beside foresay
(`make test-vllm` sets it up).
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm import LLM
from vllm import __version__ as vllm_version
from vllm.sampling_params import StructuredOutputsParams

from foresay import MultiTokenModel
from foresay.evaluation.statistics import ratio_interval
from foresay.foundation.provenance import provenance
from structured import ASKED, FREE, UNDER, Form, Ids, asked_for, held_to, ids_of, options
from vllm_modes import DRAFT, GREEDY, MASKS, PLAIN, export, modes, turn


@contextmanager
def engine(words: Mapping[str, Any], backend: str) -> Iterator[LLM]:
    """vLLM, ended afterwards."""
    how = {"dtype": "float32", "max_model_len": 1024, "max_num_seqs": 8, "enforce_eager": True}
    form = {"backend": backend, "disable_any_whitespace": True}
    llm = LLM(**words | how, structured_outputs_config=form)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


@dataclass(frozen=True, slots=True)
class Asked:
    """One schema's prompts, under it or free, and what plain decoding says to them."""

    schema: str
    held: Form
    prompts: Sequence[Ids]
    own: Sequence[list[int]]
    """Our plain decoding."""
    plain: list[list[int]] = field(default_factory=list)
    """vLLM's plain mode, once it was asked."""


def row(llm: LLM, mode: str, asked: Asked, most: int) -> dict[str, Any]:
    """These prompts, asked of one engine together."""
    form = {} if asked.held is None else {"structured_outputs": StructuredOutputsParams(json=asked.held.json)}
    made = turn(llm, asked.prompts, len(asked.prompts), GREEDY | {"max_tokens": most} | form)
    if mode == PLAIN:
        asked.plain.extend(made.answers)
    return {
        "mode": mode,
        "prompts": asked.schema,
        "how": FREE if asked.held is None else UNDER,
        "tokens": [len(answer) for answer in made.answers],
        "passes": [made.passes[place] for place in range(len(asked.prompts))],
        "as_vllm_plain": sum(one == other for one, other in zip(made.answers, asked.plain)),
        "as_our_plain": sum(one == other for one, other in zip(made.answers, asked.own)),
    }


def all_asked(model: MultiTokenModel, most: int) -> Iterator[Asked]:
    """Every schema, under it and free."""
    for schema in ASKED:
        prompts = ids_of(model, asked_for(schema))
        for held in (held_to(schema), None):
            said = model.answer(prompts, structured=held, layout="plain", max_new_tokens=most)
            yield Asked(schema, held, prompts, [answer.tokens for answer in said])


def measure(model: MultiTokenModel, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each mode and schema, under it and free."""
    wanted, rows = list(all_asked(model, given.tokens)), []
    with TemporaryDirectory() as folder:
        export(model, given.model, Path(folder))
        known = modes(Path(folder), [])
        for mode in (PLAIN, MASKS, DRAFT):
            with engine(known[mode], given.backend) as llm:
                rows += [row(llm, mode, asked, given.tokens) for asked in wanted]
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A markdown table."""
    print(
        "| mode | prompts | how | tokens a pass | as vLLM's plain | as our plain decoding |\n|---|---|---|---|---|---|"
    )
    for mode, how in dict.fromkeys((one["mode"], one["how"]) for one in rows):
        some = [one for one in rows if (one["mode"], one["how"]) == (mode, how)]
        for name, chosen in (*((one["prompts"], [one]) for one in some), ("all", some)):
            tokens, passes = ([count for one in chosen for count in one[key]] for key in ("tokens", "passes"))
            low, high = ratio_interval(tokens, passes) or (0.0, 0.0)
            rate = f"{sum(tokens) / sum(passes):.2f} ({low:.2f} to {high:.2f})"
            same = (f"{sum(one[key] for one in chosen)} of {len(tokens)}" for key in ("as_vllm_plain", "as_our_plain"))
            print(f"| {mode} | {name} | {how} | {rate} | {' | '.join(same)} |")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--backend", choices=("guidance", "xgrammar"), default="guidance", help="of vLLM's grammars")
    given = parser.parse_args()
    if given.show:
        show(json.loads(given.show.read_text())["rows"])
        return
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    rows = measure(model, given)
    settings = {**model.described, "tokens": given.tokens, "backend": given.backend, "vllm": vllm_version}
    if given.out:
        given.out.write_text(json.dumps({"rows": rows, "provenance": provenance(**settings)}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
