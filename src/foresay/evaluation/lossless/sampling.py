"""A trial of sampling: are tokens drawn several a step distributed as transformers' own?

One prompt is answered again and again, by transformers and by every layout, all from seeds of their own. The first
token of an answer never passes the verifier; the joint distribution of those after it is compared by a permutation
test (`statistics.py`). A verifier broken on purpose goes through the same test: where that is not caught, the prompt,
the settings or the sample leave the test no power, and it says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig, LayoutName, SampleConfig
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planning.planner import Planner
from foresay.decoding.sampling.chooser import Chooser, Sampled, chooser_of
from foresay.decoding.sampling.randomness import BiasedNumbers
from foresay.evaluation.baseline import sampled_answers
from foresay.evaluation.config import CheckConfig
from foresay.evaluation.lossless.greedy import planner_at_once
from foresay.evaluation.statistics import PERMUTATIONS, Power, Tokens, holm, p_value
from foresay.model import MultiTokenModel

TOKENS = 6
"""Tokens of an answer; the first is the prefill's own and no draft."""
CLASSES = 2 ** (TOKENS - 1)
"""What the joint distribution of the others is folded to."""
MASKS = 3
"""Masks unless asked otherwise: steps with drafts then follow each other within so few tokens."""
RATIO = 3
"""Answers of transformers for each of a layout: they cost less, and all layouts are compared with them."""
LEVEL = 0.01
"""A corrected p-value below this is a fault. So many sound decoders fail by chance."""
CAUGHT = 1e-4
"""A p-value below this catches the verifier broken on purpose."""
SCORES = 2**25
"""Most numbers that the distributions of one call may hold: bounds the batch."""
ENDED = -1
"""Stands for the tokens after a stop."""


@dataclass(frozen=True, slots=True)
class SamplingReport:
    """What a trial found."""

    prompt: tuple[int, ...]
    """Token ids of the prompt."""
    sample: SampleConfig
    masks: int
    samples: int
    """Answers of each layout."""
    reference_samples: int
    """Answers of transformers."""
    tokens: int
    """Tokens of an answer; all but the first are compared, together."""
    classes: int
    """That their joint distribution is folded to."""
    permutations: int
    shift: float
    """Total variation between the classes that is found with chance `power`."""
    power: float
    p_values: dict[str, float]
    """By layout: the chance of such a difference where there is none."""
    corrected: dict[str, float]
    """The same after Holm's correction for the number of layouts."""
    control: float
    """p-value of a verifier broken on purpose: it keeps every draft."""

    @property
    def biased(self) -> list[str]:
        """Layouts whose distribution is not transformers'."""
        return [layout for layout, value in self.corrected.items() if value < LEVEL]

    @property
    def has_power(self) -> bool:
        """The verifier broken on purpose was caught."""
        return self.control < CAUGHT

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        values = ", ".join(f"{layout} p = {value:.2g}" for layout, value in self.corrected.items())
        if self.biased:
            return f"Sampling is BIASED in {' and '.join(self.biased)}: {values}."
        if not self.has_power:
            return (
                f"Sampling: the test has no power, for it does not catch a verifier broken on purpose "
                f"(p = {self.control:.2g}); give another prompt, another temperature or a smaller shift."
            )
        return f"Sampling shows no bias: {values}; a verifier broken on purpose p = {self.control:.0e}."


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt, to be answered `samples` times by each layout; `sample` has a temperature above 0."""

    model: MultiTokenModel
    prompt: tuple[int, ...]
    sample: SampleConfig
    samples: int
    masks: int = MASKS

    def run(self, layouts: Sequence[LayoutName], watch: Callable[[str], None] = lambda done: None) -> SamplingReport:
        """Compare every layout, and a verifier broken on purpose, with transformers. Raises PromptError."""
        reference, power = self.reference(), power_for(layouts)
        watch("transformers")
        control = p_value(self.control(), reference)
        watch("control")
        found: dict[str, float] = {}
        for layout in layouts:
            found[layout] = p_value(self.answers(layout), reference)
            watch(layout)
        return SamplingReport(
            prompt=self.prompt,
            sample=self.sample,
            masks=self.masks,
            samples=self.samples,
            reference_samples=len(reference),
            tokens=TOKENS,
            classes=CLASSES,
            permutations=PERMUTATIONS,
            shift=power.shift(self.samples),
            power=power.chance,
            p_values=found,
            corrected=dict(zip(found, holm(list(found.values())))),
            control=control,
        )

    def reference(self) -> Tokens:
        """What transformers draws, RATIO times as many answers: (RATIO * samples, TOKENS - 1)."""
        answers = []
        for start, count in self._batches(RATIO * self.samples):
            answers += sampled_answers(self.model, self.prompt, self._seeded("transformers", start), count, TOKENS)
        return compared(answers)

    def answers(self, layout: LayoutName, planner: Planner | None = None) -> Tokens:
        """What a layout draws: (samples, TOKENS - 1)."""
        return self._draw(
            layout, lambda start: GenerationHooks(chooser_of(self._seeded(layout, start)), planner=planner)
        )

    def control(self) -> Tokens:
        """What comes out where every draft is kept: (samples, TOKENS - 1)."""
        # In a chain every draft is drawn by chance, and the random numbers alone decide what stays.
        return self._draw("linear", lambda start: GenerationHooks(broken_chooser_of(self._seeded("control", start))))

    def _draw(self, layout: LayoutName, how: Callable[[int], GenerationHooks]) -> Tokens:
        """With what `how` gives for a batch, by its first answer."""
        decode = DecodeConfig(layout=layout, masks=self.masks, max_new_tokens=TOKENS)
        answers = []
        for start, count in self._batches(self.samples):
            prompts, hooks = [self.prompt] * count, how(start)
            if hooks.planner is None:
                hooks = replace(hooks, planner=planner_at_once(self.model, prompts, decode))
            said = self.model.decode(prompts, decode, hooks)
            answers += [generation.tokens for generation in said]
        return compared(answers)

    def _batches(self, answers: int) -> Iterator[tuple[int, int]]:
        """First answer and size of each batch."""
        vocabulary = self.model.base.vocabulary
        size = max(SCORES // (vocabulary * (self.masks + 1)), 1)
        for start in range(0, answers, size):
            yield start, min(size, answers - start)

    def _seeded(self, *purpose: str | int) -> SampleConfig:
        """The settings with a seed for this purpose: what is compared must not share its draws."""
        entropy = (self.sample.seed, *repr(purpose).encode())
        return replace(self.sample, seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def broken_chooser_of(sample: SampleConfig) -> Callable[[Sequence[int]], Chooser]:
    """Makes choosers that sample wrong: the verifier keeps every draft drawn by chance."""
    sound = chooser_of(sample)

    def broken(indices: Sequence[int]) -> Chooser:
        chooser = sound(indices)
        assert isinstance(chooser, Sampled), "without a temperature nothing is drawn"
        return replace(chooser, rng=BiasedNumbers(chooser.rng))

    return broken


def power_for(layouts: Sequence[LayoutName]) -> Power:
    """What a trial of these layouts is to find, each by itself, at the level that Holm's correction may leave it."""
    return Power(CLASSES, RATIO, LEVEL / len(layouts))


def compared(answers: Sequence[Sequence[int]]) -> Tokens:
    """All tokens but the first, an answer a row: what the test compares."""
    rows = [[*answer, *[ENDED] * (TOKENS - len(answer))] for answer in answers]
    return np.array(rows, dtype=np.int64)[:, 1:]


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
    masks = config.masks or min(MASKS, model.drafts)
    samples = power_for(config.layouts).samples(config.shift)
    return Trial(model, prompt, sample, samples, masks).run(config.layouts, watch)
