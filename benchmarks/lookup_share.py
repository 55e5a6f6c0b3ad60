"""What `planned` gains from prompt lookup and what from drafts: the same prompts with lookup and without, in turn.

python benchmarks/lookup_share.py smollm2 --per-domain 2 --tokens 64 --rounds 2 > smollm2-lookup.json
"""

import argparse
import json
from dataclasses import asdict, dataclass
from time import perf_counter

from foresay import DecodeConfig, MultiTokenModel
from foresay.data.prompts import Prompt, by_domain, embedded_prompts
from foresay.decoding.live import GenerationHooks
from foresay.foundation.provenance import provenance


@dataclass(frozen=True, slots=True)
class Share:
    """One domain, decoded once."""

    domain: str
    prompt_lookup: bool
    tokens: int
    tokens_per_second: float
    tokens_per_step: float
    looked_up_tokens: int
    """Kept tokens that a lookup drafted."""


def share(model: MultiTokenModel, domain: str, prompts: list[Prompt], lookup: bool, tokens: int) -> Share:
    config = DecodeConfig(layout="planned", max_new_tokens=tokens, prompt_lookup=lookup)
    said, seconds = [], 0.0
    for prompt in prompts:
        planner = model.planner(1, len(prompt.ids))
        began = perf_counter()
        said += model.decode([prompt.ids], config, GenerationHooks(planner=planner))
        seconds += perf_counter() - began
    steps, count = [step for one in said for step in one.steps], sum(len(one.tokens) for one in said)
    found = sum(min(step.accepted, step.looked_up) for step in steps)
    return Share(domain, lookup, count, count / seconds, count / len(steps), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name, default in (("--per-domain", 2), ("--tokens", 64), ("--rounds", 2)):
        parser.add_argument(name, type=int, default=default)
    asked = parser.parse_args()
    model = MultiTokenModel.from_pretrained(asked.model, dtype="float32")
    domains = by_domain(embedded_prompts(model.require_tokenizer(), "test", asked.per_domain, asked.model))
    found = [
        asdict(share(model, domain, prompts, lookup, asked.tokens))
        for _ in range(asked.rounds)
        for lookup in (True, False)
        for domain, prompts in domains.items()
    ]
    print(json.dumps({"shares": found, "provenance": provenance(**model.described, **vars(asked))}, indent=2))


if __name__ == "__main__":
    main()
