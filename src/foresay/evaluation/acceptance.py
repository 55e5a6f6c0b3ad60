"""The verb `eval`: acceptance as paper A's Table 1 counts it, and on whole answers; quality beside the base.

One decode serves both counts. *Paper*: the first 100 steps of a prompt, or all up to the stop; tokens over steps (A9).
*Whole*: the answer up to its stop or `max_new_tokens`. Either is a ratio of sums over prompts (`metrics.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from typing import Any

from foresay.data.prompts import Prompt, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.detokenizer import StepText, transcript
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import PositionAcceptance, repeated_4grams, tally, within
from foresay.decoding.steps import Generation, Step
from foresay.evaluation.code.pass_at_k import CodeQuality
from foresay.evaluation.config import EvalConfig
from foresay.evaluation.statistics import ratio_interval
from foresay.evaluation.task_quality import Quality
from foresay.foundation.errors import require
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

FEW = 4
"""Prompts of each embedded domain where none are given."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per step with its bootstrap interval over prompts (95 %)."""

    value: float
    low: float | None
    """None, like `high`: one prompt has no interval."""
    high: float | None

    @classmethod
    def of(cls, said: Sequence[Generation]) -> "Rate":
        """Of some answers together."""
        tallies = [tally([generation]) for generation in said]
        interval = ratio_interval([one.tokens for one in tallies], [one.steps for one in tallies])
        return cls(tally(said).tokens_per_step, *(interval or (None, None)))


@dataclass(frozen=True, slots=True)
class AcceptanceRow:
    """One benchmark, or one domain, at one number of masks."""

    domain: str
    benchmark: str
    """Empty where all of the domain is counted together."""
    masks: int
    prompts: int
    paper: Rate
    """First steps alone."""
    whole: Rate
    """Whole answers."""
    tokens: int
    """Of whole answers, like all that follows."""
    steps: int
    acceptance: tuple[PositionAcceptance, ...]
    repeated_4grams: float
    stopped: float
    """Share of answers that ended by themselves."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer as text."""

    domain: str
    benchmark: str
    masks: int
    prompt: str
    said: tuple[StepText, ...]
    margins: tuple[float, ...] = ()
    """Of each step: how far, in logits, the base's best token stood above its second best, where that was closest."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found."""

    rows: tuple[AcceptanceRow, ...] = ()
    """By benchmark."""
    domains: tuple[AcceptanceRow, ...] = ()
    samples: tuple[Sample, ...] = ()
    quality: Quality | None = None
    code: CodeQuality | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def check_evaluation(model: MultiTokenModel, prompts: Sequence[Prompt], config: EvalConfig) -> tuple[int, ...]:
    """The numbers of masks that are to be counted at.

    Raises PromptError for prompts that cannot be served and for more masks than there are, ConfigError for a model that
    drafts nothing.
    """
    drafts = model.drafts
    require(drafts > 0, "the model has one head and drafts nothing, so there is no acceptance; give --tasks-only")
    counts = config.masks or tuple(range(1, drafts + 1))
    model.check_prompts([prompt.ids for prompt in prompts], DecodeConfig(masks=max(counts)))
    return counts


def evaluate(
    model: MultiTokenModel,
    prompts: Sequence[Prompt] | None = None,
    config: EvalConfig | None = None,
    watch: Callable[[int], None] = lambda prompts: None,
) -> Evaluation:
    """Count tokens per step and acceptance: decode every prompt at each number of masks.

    `prompts`: None takes the first `FEW` held-out prompts of each embedded domain. `watch` is told how many prompts
    were answered. Raises as `check_evaluation` does.

        for row in evaluate(MultiTokenModel.from_pretrained("smollm2")).domains:
            print(row.domain, row.masks, row.whole.value)
    """
    config = config or EvalConfig()
    if prompts is None:
        prompts = embedded_prompts(model.require_tokenizer(), "test", FEW, model.base_name)
    counts = check_evaluation(model, prompts, config)
    ordered = sorted(prompts, key=lambda prompt: (prompt.domain, prompt.benchmark))
    rows, domains, samples = list[AcceptanceRow](), list[AcceptanceRow](), list[Sample]()
    for masks in counts:
        said = list(_answers(model, ordered, config, masks, watch))
        pairs = list(zip(ordered, said))
        for domain, of_domain in groupby(pairs, lambda pair: pair[0].domain):
            kept = list(of_domain)
            domains.append(_row(domain, "", masks, [answer for _, answer in kept], config))
            for name, group in groupby(kept, lambda pair: pair[0].benchmark):
                own = list(group)
                rows.append(_row(domain, name or domain, masks, [answer for _, answer in own], config))
                if masks == max(counts):
                    samples += [_sample(model, *pair, masks) for pair in own[: config.samples]]
    return Evaluation(tuple(rows), tuple(domains), tuple(samples), provenance=origin(model, config))


def origin(model: MultiTokenModel, config: EvalConfig, **more: Any) -> dict[str, Any]:
    """Provenance of what is measured on this model, with these settings and `more`."""
    return provenance(**model.described, adapter=model.provenance, **asdict(config), **more)


def _answers(
    model: MultiTokenModel, prompts: Sequence[Prompt], config: EvalConfig, masks: int, watch: Callable[[int], None]
) -> Iterator[Generation]:
    """Answers long enough for either count."""
    most = max(config.max_new_tokens, (config.paper_steps + 1) * (masks + 1))
    decode = DecodeConfig(layout=config.layout, masks=masks, max_new_tokens=most)
    for start in range(0, len(prompts), config.batch_size):
        group = [prompt.ids for prompt in prompts[start : start + config.batch_size]]
        yield from model.decode(group, decode, _enough(config, len(group)))
        watch(len(group))


def _enough(config: EvalConfig, count: int) -> GenerationHooks:
    """Ends an answer one token after what either count needs."""
    steps, tokens = [0] * count, [0] * count

    def watch(index: int, step: Step) -> None:
        steps[index] += 1
        tokens[index] += len(step.tokens)

    def stop(index: int, text: list[int]) -> bool:
        return steps[index] >= config.paper_steps and tokens[index] >= config.max_new_tokens

    return GenerationHooks(watch=watch, stop=stop)


def _row(domain: str, benchmark: str, masks: int, said: Sequence[Generation], config: EvalConfig) -> AcceptanceRow:
    whole = [within(answer, tokens=config.max_new_tokens) for answer in said]
    counted = tally(whole)
    return AcceptanceRow(
        domain=domain,
        benchmark=benchmark,
        masks=masks,
        prompts=len(said),
        paper=Rate.of([within(answer, steps=config.paper_steps) for answer in said]),
        whole=Rate.of(whole),
        tokens=counted.tokens,
        steps=counted.steps,
        acceptance=counted.acceptance,
        repeated_4grams=repeated_4grams(answer.tokens for answer in whole),
        stopped=sum(answer.ended == "stop" for answer in whole) / len(whole),
    )


def _sample(model: MultiTokenModel, prompt: Prompt, answer: Generation, masks: int) -> Sample:
    said = tuple(transcript(model.require_tokenizer(), answer.steps))
    margins = tuple(_margins(model, prompt, answer))
    return Sample(prompt.domain, prompt.benchmark or prompt.domain, masks, prompt.text, said, margins)


def _margins(model: MultiTokenModel, prompt: Prompt, answer: Generation) -> Iterator[float]:
    """From one plain pass of the base over prompt and answer."""
    logits = model.base_logits([*prompt.ids, *answer.tokens])
    best = logits[len(prompt.ids) - 1 : -1].float().topk(2).values
    left = iter((best[:, 0] - best[:, 1]).tolist())
    for step in answer.steps:
        yield min(islice(left, len(step.tokens)))
