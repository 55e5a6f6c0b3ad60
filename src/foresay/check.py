"""The verb `check`: is accelerated output the base's own?

Greedy answers are compared token by token, and every difference is explained as a tie, or is a bug; sampled ones by
their distribution (`trial.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from foresay.config import DecodeConfig, DType, LayoutName, SampleConfig, require, require_at_least
from foresay.decoding.generate import check_prompts, generate
from foresay.decoding.session import Generation
from foresay.metrics import tally
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt
from foresay.provenance import provenance
from foresay.reference import plain_answer
from foresay.trial import MASKS, SamplingReport, Trial, power_for

ROUNDING = 4
"""A margin counts as rounding when it is within this many machine epsilons of the dtype, times the largest logit."""
LAYOUTS: tuple[LayoutName, ...] = ("linear", "quadratic")


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """How much is checked."""

    max_new_tokens: int = 64
    batch_size: int = 8
    masks: int = 0
    layouts: tuple[LayoutName, ...] = LAYOUTS
    shift: float = 0.25
    """Total variation, between classes of sampled answers, found with 80 % chance: sets how many are drawn."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "max_new_tokens", "batch_size")
        require(len(self.layouts) >= 1, "layouts is empty; give at least one")
        require(0 < self.shift <= 0.5, f"shift is {self.shift}; give a total variation above 0, at most 0.5")


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where an accelerated answer leaves the plain one."""

    prompt: int
    """Index of the prompt, from 0."""
    domain: str
    layout: LayoutName
    position: int
    """Index of the generated token, from 0."""
    plain_token: int | None
    accelerated_token: int | None
    """None: this answer had ended there."""
    margin: float
    """Between the base's two best logits there."""
    bound: float
    """Largest margin that rounding in this dtype explains."""
    diverges_in_float32: bool
    """The whole run of this prompt, repeated in float32, diverges too."""
    verdict: Literal["tie", "bug"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was checked and found."""

    prompts: int
    tokens: int
    """Tokens of the accelerated answers, all layouts together."""
    dtype: str
    identical: int
    """Answers equal to plain decoding token for token."""
    answers: int
    """Prompts times layouts."""
    ties: int
    bugs: int
    tokens_per_step: dict[str, float]
    """By layout."""
    divergences: tuple[Divergence, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        if self.bugs:
            return f"NOT lossless: {self.bugs} of {self.answers} answers differ and rounding does not explain it."
        ties = f", {self.ties} differ by a tie that {self.dtype} rounding explains" if self.ties else ""
        return f"Lossless: {self.identical} of {self.answers} answers are identical to plain decoding{ties}."


@dataclass(frozen=True, slots=True)
class TopTwo:
    """The base's best tokens at one place."""

    tokens: tuple[int, ...]
    """The two best, and every token as good as the second."""
    margin: float
    bound: float


@dataclass(slots=True)
class Checker:
    """Compares accelerated answers with transformers' own greedy `generate`, prompt by prompt.

    `reopen(dtype)` loads the same model in another dtype; it is called only to repeat a divergence in float32.
    """

    model: MultiTokenModel
    config: CheckConfig
    reopen: Callable[[DType], MultiTokenModel]
    watch: Callable[[str], None] = lambda done: None
    _exact: MultiTokenModel | None = None

    def run(self, prompts: Sequence[Prompt]) -> Certificate:
        """Check every prompt in every layout. Raises PromptError for prompts that cannot be served."""
        check_prompts(self.model.core, [prompt.ids for prompt in prompts], self._decode("plain"))
        plain = []
        for prompt in prompts:
            plain.append(plain_answer(self.model, prompt.ids, self.config.max_new_tokens))
            self.watch("plain")
        divergences: list[Divergence] = []
        tokens, tokens_per_step = 0, dict[str, float]()
        for layout in self.config.layouts:
            said = list(self._accelerate(layout, prompts))
            counted = tally(said)
            tokens, tokens_per_step[layout] = tokens + counted.tokens, counted.tokens_per_step
            divergences += [
                self._explain(index, prompts[index], layout, plain[index], generation.tokens)
                for index, generation in enumerate(said)
                if generation.tokens != plain[index]
            ]
        answers = len(prompts) * len(self.config.layouts)
        return Certificate(
            prompts=len(prompts),
            tokens=tokens,
            dtype=_dtype_name(self.model),
            identical=answers - len(divergences),
            answers=answers,
            ties=sum(divergence.verdict == "tie" for divergence in divergences),
            bugs=sum(divergence.verdict == "bug" for divergence in divergences),
            tokens_per_step=tokens_per_step,
            divergences=tuple(divergences),
            provenance=provenance(base=self.model.base_name, **asdict(self.config)),
        )

    def _accelerate(self, layout: LayoutName, prompts: Sequence[Prompt]) -> Iterator[Generation]:
        for start in range(0, len(prompts), self.config.batch_size):
            group = [prompt.ids for prompt in prompts[start : start + self.config.batch_size]]
            yield from generate(self.model.core, group, self._decode(layout))
            for _ in group:
                self.watch(layout)

    def _decode(self, layout: LayoutName) -> DecodeConfig:
        return DecodeConfig(layout=layout, masks=self.config.masks, max_new_tokens=self.config.max_new_tokens)

    def _explain(
        self, index: int, prompt: Prompt, layout: LayoutName, plain: Sequence[int], said: Sequence[int]
    ) -> Divergence:
        """Judge one divergence: a tie needs the base's top two, a margin within rounding, and agreement in float32."""
        position = first_difference(plain, said)
        tokens = [ids[position] if position < len(ids) else None for ids in (plain, said)]
        best = _top_two(self.model, [*prompt.ids, *plain[:position]])
        exact = self._diverges_in_float32(prompt, layout)
        tie = set(tokens) <= set(best.tokens) and best.margin <= best.bound and not exact
        return Divergence(
            prompt=index,
            domain=prompt.domain,
            layout=layout,
            position=position,
            plain_token=tokens[0],
            accelerated_token=tokens[1],
            margin=best.margin,
            bound=best.bound,
            diverges_in_float32=exact,
            verdict="tie" if tie else "bug",
        )

    def _diverges_in_float32(self, prompt: Prompt, layout: LayoutName) -> bool:
        """Repeat the whole run of a prompt in float32, never one position alone."""
        if self._exact is None:
            self._exact = self.reopen("float32")
        plain = plain_answer(self._exact, prompt.ids, self.config.max_new_tokens)
        return generate(self._exact.core, [prompt.ids], self._decode(layout))[0].tokens != plain


def check_sampling(
    model: MultiTokenModel,
    prompts: Sequence[Prompt],
    sample: SampleConfig,
    config: CheckConfig,
    watch: Callable[[str], None] = lambda done: None,
) -> SamplingReport | None:
    """Is sampling in every layout distributed as transformers' own? On the shortest prompt, which is the cheapest.

    None where `sample` has no temperature: nothing is drawn.
    """
    if not sample.temperature:
        return None
    prompt = min((prompt.ids for prompt in prompts), key=len)
    masks = config.masks or min(MASKS, model.core.config.drafts)
    samples = power_for(config.layouts).samples(config.shift)
    return Trial(model, prompt, sample, samples, masks).run(config.layouts, watch)


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """Index of the first unequal token; where one ends first, its length."""
    unequal: Iterable[int] = (place for place, (a, b) in enumerate(zip(left, right)) if a != b)
    return next(iter(unequal), min(len(left), len(right)))


@torch.no_grad()
def _top_two(model: MultiTokenModel, ids: Sequence[int]) -> TopTwo:
    """The base's two best tokens behind `ids`, their margin, and the rounding bound of its dtype there."""
    logits = model.core.model(torch.tensor([ids], device=model.core.base.device), use_cache=False).logits[0, -1]
    best = logits.float().topk(2)
    bound = ROUNDING * torch.finfo(logits.dtype).eps * logits.abs().max().item()
    # Tokens as good as the second best are second best too: which of them `topk` names is chance.
    tokens = (logits >= logits.topk(2).values[-1]).nonzero()[:, 0].tolist()
    return TopTwo(tuple(tokens), (best.values[0] - best.values[1]).item(), bound)


def _dtype_name(model: MultiTokenModel) -> str:
    return str(model.core.base.dtype).removeprefix("torch.")
