"""The embedded model inside vLLM: with the masks, with vLLM's own n-gram drafts, plain, and our linear layout beside.

    python benchmarks/vllm_modes.py --repeats 5 > vllm-nano.json

All engines are open at once and take turns, each repeat starting with another; speed-ups are medians of the ratio to
plain within a repeat. A pass is one output of vLLM for one request: its prompt's, then one for each forward of the
target; the draft model (`draft model`) runs once more beside each. Needs vLLM beside foresay (`make test-vllm` sets it
up).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

import torch
from vllm import LLM, SamplingParams
from vllm import __version__ as vllm_version
from vllm.sampling_params import RequestOutputKind

from foresay.data.prompts import Prompt, by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import repeated_4grams, tally
from foresay.evaluation.baseline import plain_answers
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.base.load import adapter_folder
from foresay.serving.config import PluginConfig
from foresay.serving.vllm.export import export_vllm, export_vllm_draft_model
from foresay.serving.vllm.manifest import engine_arguments

PLAIN, DRAFT = "plain", "draft model"
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}


@dataclass
class Turn:
    """What one mode made of one domain, once."""

    seconds: float = 0.0
    passes: int = 0
    answers: list[list[int]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.answers))


def modes(folder: Path) -> dict[str, dict[str, Any]]:
    """Arguments of vLLM for each mode."""
    bare = {"model": str(folder)}
    return {
        PLAIN: bare,
        "n-gram": bare | {"speculative_config": NGRAM},
        "masks": engine_arguments(folder),
        "masks, all drafts": engine_arguments(folder, lengths="all"),
        "masks, k = 3": engine_arguments(folder, masks=3),
        DRAFT: engine_arguments(folder.parent / DRAFT),
    }


def turn(llm: LLM, prompts: Sequence[Prompt], tokens: int) -> Turn:
    """Answer the prompts together, greedy."""
    done, said = Turn(), {str(index): [] for index in range(len(prompts))}
    settings = SamplingParams(temperature=0.0, max_tokens=tokens, output_kind=RequestOutputKind.DELTA)
    started = time.perf_counter()
    for name, prompt in zip(said, prompts):
        llm.llm_engine.add_request(name, {"prompt_token_ids": list(prompt.ids)}, settings)
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            done.passes += 1
            said[output.request_id] += output.outputs[0].token_ids
    done.seconds = time.perf_counter() - started
    done.answers = list(said.values())
    return done


def measure(
    given: argparse.Namespace, folder: Path, domains: dict[str, list[Prompt]]
) -> dict[str, dict[str, list[Turn]]]:
    """Every turn, by mode and domain."""
    chosen = {name: words for name, words in modes(folder).items() if not given.modes or name in [PLAIN, *given.modes]}
    turns: dict[str, dict[str, list[Turn]]] = {name: {domain: [] for domain in domains} for name in chosen}
    with ExitStack() as stack:
        llms = {}
        for name, words in chosen.items():
            how = {"dtype": given.dtype, "max_model_len": 512, "max_num_seqs": given.together}
            llms[name] = LLM(**words | how, enforce_eager=given.eager)
            stack.callback(llms[name].llm_engine.engine_core.shutdown)
        for repeat in range(-1, given.repeats):  # -1 is the warm-up
            for domain, prompts in domains.items():
                shift = max(repeat, 0) % len(llms)
                for name in (*list(llms)[shift:], *list(llms)[:shift]):
                    llms[name].reset_prefix_cache()
                    made = turn(llms[name], prompts, given.tokens)
                    if repeat >= 0:
                        turns[name][domain].append(made)
    return turns


def row(name: str, domain: str, made: list[Turn], plain: list[Turn], own: list[list[int]]) -> dict[str, Any]:
    """One mode on one domain."""
    ratios = [other.seconds / one.seconds for one, other in zip(made, plain)]
    first = made[0]
    return {
        "mode": name,
        "domain": domain,
        "prompts": len(own),
        "tokens": first.tokens,
        "passes": first.passes,
        "tokens_per_pass": first.tokens / first.passes,
        "identical": min(sum(a == b for a, b in zip(one.answers, own)) for one in made),
        "tokens_per_second": [one.tokens / one.seconds for one in made],
        "speedup_vs_plain": statistics.median(ratios),
        "speedup_spread": [min(ratios), max(ratios)],
    }


def ours(model: MultiTokenModel, domain: str, prompts: Sequence[Prompt], own: list[list[int]], tokens: int) -> Any:
    """Our own linear layout on the same prompts; no seconds, for it runs in another process."""
    said = model.decode([p.ids for p in prompts], DecodeConfig(layout="linear", max_new_tokens=tokens))
    counted = tally(said)
    return {
        "mode": "foresay linear",
        "domain": domain,
        "prompts": len(own),
        "tokens": counted.tokens,
        "passes": counted.steps,
        "tokens_per_pass": counted.tokens_per_step,
        "identical": sum(one.tokens == other for one, other in zip(said, own)),
        "repeated_4grams": repeated_4grams(own),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-domain", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--together", type=int, default=4, help="requests that run together")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--modes", nargs="*", default=[], help="beside plain; none: all")
    given = parser.parse_args()
    model = MultiTokenModel.from_pretrained("nano", dtype=given.dtype)
    domains = by_domain(embedded_prompts(model.require_tokenizer(), "test", given.per_domain))
    torch.set_num_threads(1)  # no clock runs here, and the engines want the cores
    own = {
        domain: [plain_answers(model, [prompt.ids], given.tokens)[0] for prompt in prompts]
        for domain, prompts in domains.items()
    }
    results = [ours(model, domain, prompts, own[domain], given.tokens) for domain, prompts in domains.items()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "served"
        export_vllm(model, adapter_folder("nano"), folder, PluginConfig(), overwrite=False)
        export_vllm_draft_model(model, adapter_folder("nano"), folder.parent / DRAFT, 0, overwrite=False)
        turns = measure(given, folder, domains)
    for domain in domains:
        results += [row(name, domain, made[domain], turns[PLAIN][domain], own[domain]) for name, made in turns.items()]
    print(json.dumps({"results": results, "provenance": provenance(vllm=vllm_version, **vars(given))}, indent=1))


if __name__ == "__main__":
    main()
