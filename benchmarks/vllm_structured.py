"""vLLM's own structured outputs, plain, with our masks and with our draft model, on the prompts of `structured.py`.

    python benchmarks/vllm_structured.py smollm2 --out vllm-structured.json

Greedy, in float32, with llguidance as vLLM's backend. Every answer is compared with our own plain decoding under the
same schema. A pass is one output of vLLM for one request; the draft model runs once more beside each. Counts alone, no
seconds. Needs vLLM beside foresay (`make test-vllm` sets it up).
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm import LLM
from vllm import __version__ as vllm_version
from vllm.sampling_params import StructuredOutputsParams

from foresay import DecodeConfig, MultiTokenModel
from foresay.foundation.provenance import provenance
from structured import ASKED, FREE, UNDER, Form, Ids, asked_for, held_to, ids_of
from vllm_modes import DRAFT, GREEDY, MASKS, PLAIN, export, modes, turn


@contextmanager
def engine(words: Mapping[str, Any]) -> Iterator[LLM]:
    """vLLM, ended afterwards."""
    how = {"dtype": "float32", "max_model_len": 1024, "max_num_seqs": 8, "enforce_eager": True}
    form = {"backend": "guidance", "disable_any_whitespace": True}
    llm = LLM(**words | how, structured_outputs_config=form)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


def row(llm: LLM, mode: str, asked: tuple[str, Form], prompts: Sequence[Ids], own: Sequence[Ids], most: int) -> Any:
    """One schema's prompts, asked of one engine together."""
    schema, held = asked
    form = {} if held is None else {"structured_outputs": StructuredOutputsParams(json=held.json)}
    made = turn(llm, prompts, len(prompts), GREEDY | {"max_tokens": most} | form)
    return {
        "mode": mode,
        "prompts": schema,
        "how": FREE if held is None else UNDER,
        "count": len(prompts),
        "tokens": made.tokens,
        "passes": made.passes.total(),
        "tokens_per_pass": made.tokens / made.passes.total(),
        "identical": sum(one == list(other) for one, other in zip(made.answers, own)),
    }


def measure(model: MultiTokenModel, name: str, most: int) -> list[dict[str, Any]]:
    """A row for each mode and schema, under it and free."""
    texts, decode = {schema: ids_of(model, asked_for(schema)) for schema in ASKED}, DecodeConfig(layout="plain")
    own: list[tuple[tuple[str, Form], list[list[int]]]] = []
    for schema, prompts in texts.items():
        for held in (held_to(schema), None):
            said = model.answer(prompts, decode, structured=held, max_new_tokens=most)
            own.append(((schema, held), [answer.tokens for answer in said]))
    rows = []
    with TemporaryDirectory() as folder:
        export(model, name, Path(folder))
        known = modes(Path(folder), [])
        for mode in (PLAIN, MASKS, DRAFT):
            with engine(known[mode]) as llm:
                rows += [row(llm, mode, asked, texts[asked[0]], answers, most) for asked, answers in own]
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A markdown table."""
    print("| mode | how | tokens a pass | as our plain decoding |\n|---|---|---|---|")
    for mode, how in dict.fromkeys((one["mode"], one["how"]) for one in rows):
        some = [one for one in rows if (one["mode"], one["how"]) == (mode, how)]
        tokens, passes, same, count = (
            sum(one[key] for one in some) for key in ("tokens", "passes", "identical", "count")
        )
        print(f"| {mode} | {how} | {tokens / passes:.2f} | {same} of {count} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--out", type=Path, required=True, help="file for the result")
    given = parser.parse_args()
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    rows = measure(model, given.model, given.tokens)
    settings = {**model.described, "tokens": given.tokens, "vllm": vllm_version}
    given.out.write_text(json.dumps({"rows": rows, "provenance": provenance(**settings)}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
