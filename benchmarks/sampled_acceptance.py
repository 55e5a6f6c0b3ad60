"""Tokens per step when tokens are sampled, beside greedy: quadratic, held-out prompts, with intervals over prompts.

python benchmarks/sampled_acceptance.py smollm2 --masks 3 --per-domain 10 --out smollm2-sampled.json
python benchmarks/sampled_acceptance.py --show smollm2-sampled.json

Sampled drafts come in two ways, and both leave the base's distribution exact. *Drawn*: each draft is drawn from the
sampler head and kept with chance min(1, p/q) (Leviathan et al. 2023); `generate` and `answer` do that. *Best*: each
draft is the sampler head's best token and stays where the base draws that very token; the server does that, for then a
text depends on its seed alone.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from foresay import DecodeConfig, MultiTokenModel, PenaltyConfig, SampleConfig
from foresay.data.prompts import Prompt, by_domain, embedded_prompts
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import repeated_4grams, tally
from foresay.decoding.sampling.chooser import Chooser, chooser_of
from foresay.decoding.sampling.per_request import Mixed, Rule
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.evaluation.acceptance import Rate
from foresay.foundation.provenance import provenance

DraftKind = Literal["best", "drawn"]
GREEDY = SampleConfig()
SAMPLED = tuple(SampleConfig(temperature=heat, top_p=top_p) for heat in (0.7, 1.0) for top_p in (1.0, 0.9))


@dataclass(frozen=True, slots=True)
class Row:
    """One domain under one rule."""

    domain: str
    temperature: float
    top_p: float
    drafts: DraftKind
    prompts: int
    tokens: int
    steps: int
    tokens_per_step: Rate
    acceptance: tuple[float, ...]
    """Share of steps that keep the 1st, 2nd, ... draft."""
    repeated_4grams: float


def chooser(sample: SampleConfig, drafts: DraftKind) -> Callable[[Sequence[int]], Chooser]:
    if drafts == "drawn" or sample == GREEDY:
        return chooser_of(sample)
    rule = Rule.of(sample, PenaltyConfig(), 0)
    return lambda indices: Mixed([rule] * len(indices), SeededNumbers(sample.seed, indices))


def row(
    model: MultiTokenModel, prompts: Sequence[Prompt], decode: DecodeConfig, sample: SampleConfig, drafts: DraftKind
) -> Row:
    said = model.decode([prompt.ids for prompt in prompts], decode, GenerationHooks(chooser(sample, drafts)))
    counted = tally(said)
    return Row(
        domain=prompts[0].domain,
        temperature=sample.temperature,
        top_p=sample.top_p,
        drafts=drafts,
        prompts=len(prompts),
        tokens=counted.tokens,
        steps=counted.steps,
        tokens_per_step=Rate.of(said),
        acceptance=tuple(counted.acceptance_per_position),
        repeated_4grams=repeated_4grams(answer.tokens for answer in said),
    )


def measure(model: MultiTokenModel, per_domain: int, decode: DecodeConfig, kinds: Sequence[DraftKind]) -> list[Row]:
    """Greedy, then each rule with each kind of drafts."""
    domains = by_domain(embedded_prompts(model.require_tokenizer(), "test", per_domain, model.base_name))
    settings = [(GREEDY, "best"), *((sample, kind) for kind in kinds for sample in SAMPLED)]
    return [row(model, some, decode, *setting) for setting in settings for some in domains.values()]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A markdown table: rules down, domains across, intervals in brackets."""
    domains = list(dict.fromkeys(one["domain"] for one in rows))
    print(f"| rule | drafts | {' | '.join(domains)} |\n|{'---|' * (len(domains) + 2)}")
    for rule in dict.fromkeys((one["temperature"], one["top_p"], one["drafts"]) for one in rows):
        cells = [one["tokens_per_step"] for one in rows if (one["temperature"], one["top_p"], one["drafts"]) == rule]
        temperature, top_p, drafts = rule
        name = f"T = {temperature:g}{f', top-p {top_p:g}' if top_p < 1 else ''}" if temperature else "greedy"
        said = (f"{cell['value']:.2f} ({cell['low']:.2f} to {cell['high']:.2f})" for cell in cells)
        print(f"| {name} | {drafts} | {' | '.join(said)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    for name, default in (("--masks", 3), ("--per-domain", 10), ("--tokens", 64)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--drafts", nargs="+", choices=get_args(DraftKind), default=["drawn"])
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--show", type=Path, help="print the table of a result instead")
    asked = parser.parse_args()
    if asked.show:
        show(json.loads(asked.show.read_text())["rows"])
        return
    model = MultiTokenModel.from_pretrained(asked.model, dtype="float32")
    decode = DecodeConfig(layout="quadratic", masks=asked.masks, max_new_tokens=asked.tokens)
    rows = [asdict(one) for one in measure(model, asked.per_domain, decode, asked.drafts)]
    settings = asdict(decode) | {"per_domain": asked.per_domain}
    result = {"rows": rows, "provenance": provenance(**model.described, **settings)}
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
