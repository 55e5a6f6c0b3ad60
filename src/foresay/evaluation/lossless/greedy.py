"""The verb `check`: is accelerated output the base's own?

Greedy answers are compared token by token, and every difference is explained as a tie, or is a bug; sampled ones by
their distribution (`sampling.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from foresay.data.prompts import Prompt, by_domain
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planning.planner import Planner
from foresay.decoding.steps import Generation
from foresay.evaluation.baseline import plain_answer, plain_answers
from foresay.evaluation.config import CheckConfig, Setting
from foresay.evaluation.lossless.certificate import Certificate, Count, Divergence, NoiseFloor, certificate
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.config import DType

ROUNDING = 4
"""A margin counts as rounding when it is within this many machine epsilons of the dtype, times the largest logit."""
BESIDE = 4
"""Prompts that transformers answers together for the noise floor; each alone is what everything is compared with."""


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
    _repeated: dict[tuple[LayoutName, range], list[bool]] = field(default_factory=dict)
    _plain_exact: dict[int, list[int]] = field(default_factory=dict)

    def run(self, prompts: Sequence[Prompt]) -> Certificate:
        """Check every prompt in every setting. Raises PromptError for prompts that cannot be served."""
        self.model.check_prompts([prompt.ids for prompt in prompts], self._decode("plain"))
        self._repeated.clear()
        self._plain_exact.clear()
        plain = []
        for prompt in prompts:
            plain.append(plain_answer(self.model, prompt.ids, self.config.max_new_tokens))
            self.watch("plain")
        domains = [prompt.domain for prompt in prompts]
        counts, divergences = list[Count](), list[Divergence]()
        for setting in self.config.settings:
            said = list(self._accelerate(setting, prompts))
            found = [
                self._explain(setting, index, prompts, (plain[index], generation.tokens))
                for index, generation in enumerate(said)
                if generation.tokens != plain[index]
            ]
            counts.append(Count.of(setting.layout, setting.batch_size, said, found, domains))
            divergences += found
        return certificate(
            counts,
            divergences,
            {domain: len(group) for domain, group in by_domain(prompts).items()},
            noise=noise_floor(self.model, prompts, plain, self.config.max_new_tokens, self.watch)
            if divergences
            else None,
            dtype=self.model.dtype_name,
            fingerprints=self.model.fingerprints(),
            provenance=provenance(
                **self.model.described, adapter=self.model.provenance, rounding=ROUNDING, **asdict(self.config)
            ),
        )

    def _accelerate(self, setting: Setting, prompts: Sequence[Prompt]) -> Iterator[Generation]:
        for group in setting.groups(len(prompts)):
            yield from self._answers(self.model, [prompts[index].ids for index in group], setting.layout)
            for _ in group:
                self.watch(setting.layout)

    def _answers(self, model: MultiTokenModel, ids: Sequence[Sequence[int]], layout: LayoutName) -> list[Generation]:
        decode = self._decode(layout)
        return model.decode(ids, decode, GenerationHooks(planner=planner_at_once(model, ids, decode)))

    def _decode(self, layout: LayoutName) -> DecodeConfig:
        return DecodeConfig(layout=layout, masks=self.config.masks, max_new_tokens=self.config.max_new_tokens)

    def _explain(
        self, setting: Setting, index: int, prompts: Sequence[Prompt], answers: tuple[Sequence[int], Sequence[int]]
    ) -> Divergence:
        group = next(group for group in setting.groups(len(prompts)) if index in group)
        exact = self._diverge_in_float32(setting.layout, group, prompts)[group.index(index)]
        found = judged(self.model, prompts[index], answers, exact)
        return Divergence(
            prompt=index, domain=prompts[index].domain, layout=setting.layout, batch_size=setting.batch_size, **found
        )

    def _diverge_in_float32(self, layout: LayoutName, group: range, prompts: Sequence[Prompt]) -> list[bool]:
        """Repeat the whole run of prompts that go together in float32, never one position alone."""
        if (layout, group) not in self._repeated:
            if self._exact is None:
                self._exact = self.reopen("float32")
            said = self._answers(self._exact, [prompts[index].ids for index in group], layout)
            for index in group:
                if index not in self._plain_exact:  # the same for every layout and batch size
                    self._plain_exact[index] = plain_answer(self._exact, prompts[index].ids, self.config.max_new_tokens)
            self._repeated[layout, group] = [one.tokens != self._plain_exact[index] for index, one in zip(group, said)]
        return self._repeated[layout, group]


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """Index of the first unequal token; where one ends first, its length."""
    unequal: Iterable[int] = (place for place, (a, b) in enumerate(zip(left, right)) if a != b)
    return next(iter(unequal), min(len(left), len(right)))


def judged(
    model: MultiTokenModel, prompt: Prompt, answers: tuple[Sequence[int], Sequence[int]], exact: bool
) -> dict[str, Any]:
    """Judge two unequal `answers`, the plain one and the accelerated one: what `Divergence` says of the place.

    A tie needs both tokens within rounding of the base's best one there, of which there may be any number, and
    agreement in float32: `exact` says that the whole run repeated there diverges too.
    """
    position = first_difference(*answers)
    plain, accelerated = (ids[position] if position < len(ids) else None for ids in answers)
    said = [token for token in (plain, accelerated) if token is not None]
    margin, bound = _behind(model, [*prompt.ids, *answers[0][:position]], said)
    tie = len(said) == len(answers) and margin <= bound and not exact
    return {
        "position": position,
        "plain_token": plain,
        "accelerated_token": accelerated,
        "margin": margin,
        "bound": bound,
        "diverges_in_float32": exact,
        "verdict": "tie" if tie else "bug",
    }


def _behind(model: MultiTokenModel, ids: Sequence[int], tokens: Sequence[int]) -> tuple[float, float]:
    """How far the worst of `tokens` is behind the base's best token after `ids`, and the rounding bound there."""
    logits = model.base_logits(ids)[-1]
    bound = ROUNDING * torch.finfo(logits.dtype).eps * logits.abs().max().item()
    return (logits.max().float() - logits[list(tokens)].float().min()).item(), bound


def noise_floor(
    model: MultiTokenModel,
    prompts: Sequence[Prompt],
    plain: Sequence[Sequence[int]],
    max_new_tokens: int,
    watch: Callable[[str], None] = lambda done: None,
) -> NoiseFloor:
    """How many of transformers' own greedy answers change when it answers `BESIDE` prompts together."""
    differing = 0
    for start in range(0, len(prompts), BESIDE):
        some = range(start, min(start + BESIDE, len(prompts)))
        together = plain_answers(model, [prompts[index].ids for index in (*some, *some[:1])], max_new_tokens)
        # The context ends a batch for all its answers at once.
        room = model.base.context - max(len(prompts[index].ids) for index in some)
        for index, said in zip(some, together):
            differing += list(plain[index])[:room] != said[:room]
            watch("plain, several together")
    return NoiseFloor(BESIDE, len(prompts), differing)


def planner_at_once(model: MultiTokenModel, ids: Sequence[Sequence[int]], config: DecodeConfig) -> Planner | None:
    """For what is checked drafts from the first step on: waits until steps are measured. None: nothing is planned."""
    if config.layout != "planned":
        return None
    model.prepare(config)
    return model.planner(len(ids), max(map(len, ids)), config.masks)
