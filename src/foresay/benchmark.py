"""The verb `bench`: what acceleration is worth here, measured side by side in one interleaved run."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from foresay.config import DecodeConfig, LayoutName, require_at_least
from foresay.decoding.generate import check_prompts, generate
from foresay.decoding.session import Generation
from foresay.metrics import Tally, repeated_4grams, tally
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt, by_domain
from foresay.provenance import provenance
from foresay.reference import plain_answers

TRANSFORMERS, PLAIN = "transformers", "plain"


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What is measured."""

    layouts: tuple[LayoutName, ...] = ("linear", "quadratic")
    masks: tuple[int, ...] = ()
    """Masks a block, each measured in each layout; empty: the trained k."""
    batch_size: int = 1
    max_new_tokens: int = 48
    repeats: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, 1, "batch_size", "max_new_tokens", "repeats")


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way to decode."""

    name: str
    masks: int = 0


@dataclass(slots=True)
class Runs:
    """What one decoder did on one domain, over all repeats."""

    seconds: list[float] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    tally: Tally | None = None

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each repeat."""
        tokens = sum(map(len, self.answers))
        return [tokens / seconds for seconds in self.seconds]


@dataclass(frozen=True, slots=True)
class Result:
    """One decoder on one domain."""

    decoder: str
    masks: int
    batch_size: int
    prompts: int
    prompt_tokens: float
    """Mean length of the prompts."""
    dtype: str
    domain: str
    tokens_per_second: float
    """Median over the repeats."""
    tokens_per_second_spread: tuple[float, float]
    """Smallest and largest over the repeats."""
    tokens_per_step: float
    acceptance_per_position: tuple[float, ...]
    """Unconditional."""
    repeated_4grams: float
    """Share in the base's own output: loops flatter."""
    identical: int
    """Answers equal to transformers' `generate`."""
    speedup_vs_plain: float
    """Median over the repeats of the ratio within a repeat."""
    speedup_vs_transformers: float
    efficiency: float
    """Speed-up over plain divided by tokens per step."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A whole run."""

    results: tuple[Result, ...]
    provenance: dict[str, Any]


def bench(
    model: MultiTokenModel,
    prompts: Sequence[Prompt],
    config: BenchConfig,
    watch: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure every decoder on every domain, `config.repeats` times in turn, after one warm-up each.

    `watch(decoder name)` is called after every domain of every decoder. Raises PromptError for prompts that cannot be
    served.
    """
    check_prompts(model.core, [prompt.ids for prompt in prompts], DecodeConfig(masks=max(config.masks, default=0)))
    domains, decoders = by_domain(prompts), decoders_of(model, config)
    runs = {(decoder, domain): Runs() for decoder in decoders for domain in domains}
    for decoder in decoders:
        _decode(model, decoder, prompts[: config.batch_size], config)
        watch(decoder.name)
    for repeat in range(config.repeats):
        for domain, group in domains.items():
            # Each repeat starts with another decoder, so that none always runs on a warmer machine.
            shift = repeat % len(decoders)
            for decoder in decoders[shift:] + decoders[:shift]:
                _run(model, decoder, group, config, runs[decoder, domain])
                watch(decoder.name)
    results = [
        _result(model, decoder, domain, domains[domain], config, runs) for domain in domains for decoder in decoders
    ]
    return Bench(tuple(results), provenance(base=model.base_name, adapter=model.provenance, **asdict(config)))


def decoders_of(model: MultiTokenModel, config: BenchConfig) -> list[Decoder]:
    """Transformers and plain first: everything else is measured against them."""
    masks = config.masks or (model.core.config.num_masks,)
    return [Decoder(TRANSFORMERS), Decoder(PLAIN)] + [Decoder(name, k) for name in config.layouts for k in masks]


def _run(model: MultiTokenModel, decoder: Decoder, prompts: Sequence[Prompt], config: BenchConfig, runs: Runs) -> None:
    """One repeat of a decoder on a domain."""
    started = time.perf_counter()
    answers, generations = _decode(model, decoder, prompts, config)
    runs.seconds.append(time.perf_counter() - started)
    runs.answers, runs.tally = answers, tally(generations) if generations else None


def _decode(
    model: MultiTokenModel, decoder: Decoder, prompts: Sequence[Prompt], config: BenchConfig
) -> tuple[list[list[int]], list[Generation]]:
    answers: list[list[int]] = []
    generations: list[Generation] = []
    for group in _batches(prompts, config.batch_size):
        if decoder.name == TRANSFORMERS:
            answers += plain_answers(model, group, config.max_new_tokens)
            continue
        decode = DecodeConfig(layout=decoder.name, masks=decoder.masks, max_new_tokens=config.max_new_tokens)  # type: ignore[arg-type]
        said = generate(model.core, group, decode)
        generations += said
        answers += [generation.tokens for generation in said]
    return answers, generations


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[list[tuple[int, ...]]]:
    for start in range(0, len(prompts), size):
        yield [prompt.ids for prompt in prompts[start : start + size]]


def _result(
    model: MultiTokenModel,
    decoder: Decoder,
    domain: str,
    prompts: Sequence[Prompt],
    config: BenchConfig,
    runs: dict[tuple[Decoder, str], Runs],
) -> Result:
    own = runs[decoder, domain]
    reference, plain = runs[Decoder(TRANSFORMERS), domain], runs[Decoder(PLAIN), domain]
    steps = own.tally.tokens_per_step if own.tally else 1.0
    speedup = _ratio(own, plain)
    return Result(
        decoder=decoder.name,
        masks=decoder.masks,
        batch_size=config.batch_size,
        prompts=len(prompts),
        prompt_tokens=round(statistics.mean(len(prompt.ids) for prompt in prompts), 1),
        dtype=str(model.core.base.dtype).removeprefix("torch."),
        domain=domain,
        tokens_per_second=statistics.median(own.rates),
        tokens_per_second_spread=(min(own.rates), max(own.rates)),
        tokens_per_step=steps,
        acceptance_per_position=tuple(own.tally.acceptance_per_position) if own.tally else (),
        repeated_4grams=repeated_4grams(reference.answers),
        identical=sum(a == b for a, b in zip(own.answers, reference.answers)),
        speedup_vs_plain=speedup,
        speedup_vs_transformers=_ratio(own, reference),
        efficiency=speedup / steps,
    )


def _ratio(runs: Runs, baseline: Runs) -> float:
    """Median over the repeats of the speed ratio within a repeat."""
    return statistics.median(own / other for own, other in zip(runs.rates, baseline.rates))
