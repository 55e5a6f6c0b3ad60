"""pass@k: the chance that one of k answers to a problem passes its tests, of plain and of accelerated decoding.

Every layout gets the same random numbers, token by token, so in float32 it gives plain decoding's own texts, greedy or
sampled, and the same figures; where two tokens' chances meet within rounding a sampled text may turn off.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

from foresay.data.chat import encode
from foresay.decoding.config import DecodeConfig, LayoutName, PenaltyConfig, SampleConfig
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import tally
from foresay.decoding.sampling.chooser import Chooser
from foresay.decoding.sampling.per_request import Mixed, Rule
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.steps import Generation
from foresay.evaluation.code.problems import Problem, ProblemSet, read_problems
from foresay.evaluation.code.sandbox import Limits, Outcome, described, run_programs
from foresay.evaluation.config import CodeConfig
from foresay.evaluation.statistics import ratio_interval
from foresay.foundation.errors import require
from foresay.model import MultiTokenModel

PLAIN: LayoutName = "plain"


def pass_at_k(answers: int, passed: int, k: int) -> float:
    """Chance that some of `k` answers, drawn from `answers` of which `passed` are right, is right: unbiased.

    From Chen et al. 2021 (arXiv 2107.03374), eq. 1; `k` is at most `answers`.

    >>> pass_at_k(answers=4, passed=1, k=2)
    0.5
    """
    return 1 - comb(answers - passed, k) / comb(answers, k)


@dataclass(frozen=True, slots=True)
class PassRate:
    """pass@k, mean of the problems, with its bootstrap interval over them (95 %)."""

    k: int
    value: float
    low: float | None
    """None, like `high`: one problem has no interval."""
    high: float | None


@dataclass(frozen=True, slots=True)
class CodeResult:
    """One set of problems in one layout at one temperature."""

    benchmark: str
    layout: LayoutName
    temperature: float
    answers: int
    """To each problem."""
    pass_at: tuple[PassRate, ...]
    passed: dict[str, int]
    """Right answers by problem."""
    verdicts: dict[str, int]
    """Answers by verdict, and by kind of error: `passed`, `failed AssertionError`, `time CPU time`, `memory`."""
    identical: int
    """Answers that are plain decoding's own texts, out of all."""
    tokens: int
    """Generated, in all answers."""
    tokens_per_step: float

    @property
    def agrees(self) -> bool:
        """Every text is plain decoding's own."""
        return self.identical == self.answers * len(self.passed)


@dataclass(frozen=True, slots=True)
class CodeQuality:
    """All sets in all layouts at all temperatures; of each set and temperature plain decoding first."""

    results: tuple[CodeResult, ...] = ()
    kept_from_network: str = ""
    """By what the programs were."""

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        others = [result for result in self.results if result.layout != PLAIN]
        same, all_of_them = sum(one.identical for one in others), sum(one.answers * len(one.passed) for one in others)
        return f"{same} of {all_of_them} accelerated answers to problems are plain decoding's own texts."


def read_sets(model: MultiTokenModel, config: CodeConfig) -> list[ProblemSet]:
    """The problems that are asked for, found to be such that this model can answer them.

    Raises DataError for rows that are no problems, ConfigError where a chat is asked for and there is no template,
    PromptError for prompts that cannot be served.
    """
    template = model.require_tokenizer().chat_template is not None
    require(template or not config.chats, "the model has no chat template; give --code-prompts completion")
    sets = [read_problems(text, config.code_limit) for text in config.code]
    for some in sets:
        model.check_prompts(Solver(model, config).ids(some.problems))
    return sets


def count_passes(
    model: MultiTokenModel,
    sets: Sequence[ProblemSet],
    config: CodeConfig,
    watch: Callable[[int], None] = lambda answers: None,
) -> CodeQuality:
    """Answer every problem plainly and in each layout, and run the code.

    `watch` is told how many answers were generated. Raises ConfigError where the system is not Linux.
    """
    solver = Solver(model, config, watch)
    results = [
        result
        for problems in sets
        for temperature in config.code_temperatures
        for result in solver.results(problems, temperature)
    ]
    return CodeQuality(tuple(results), described())


@dataclass(frozen=True, slots=True)
class Solver:
    """How one model answers problems."""

    model: MultiTokenModel
    config: CodeConfig
    watch: Callable[[int], None] = lambda answers: None

    def ids(self, problems: Sequence[Problem]) -> list[list[int]]:
        """Token ids of what is asked, of each problem."""
        tokenizer, chats = self.model.require_tokenizer(), self.config.chats
        asked = (problem.question if chats else problem.text for problem in problems)
        return [encode(tokenizer, text, raw=not chats) for text in asked]

    def results(self, problems: ProblemSet, temperature: float) -> Iterator[CodeResult]:
        """Of plain decoding, then of each layout; a program that was run once is not run again."""
        asked = [problem for problem in problems.problems for _ in range(self.config.code_answers)]
        plain, outcomes = list[str](), dict[str, Outcome]()
        for layout in self.config.all_layouts:
            said = list(self._answers(asked, layout, temperature))
            texts = [self._text(answer) for answer in said]
            plain = plain or texts
            programs = [problem.program(text, self.config.chats) for problem, text in zip(asked, texts)]
            outcomes |= run_programs([program for program in programs if program not in outcomes], self._limits)
            fared = [outcomes[program] for program in programs]
            passed = _passed(asked, fared)
            yield CodeResult(
                benchmark=problems.name,
                layout=layout,
                temperature=temperature,
                answers=self.config.code_answers,
                pass_at=tuple(_rate(passed.values(), self.config.code_answers, k) for k in self.config.pass_at),
                passed=passed,
                verdicts=dict(Counter(str(outcome) for outcome in fared).most_common()),
                identical=sum(text == own for text, own in zip(texts, plain)),
                tokens=tally(said).tokens,
                tokens_per_step=tally(said).tokens_per_step,
            )

    def _answers(self, asked: Sequence[Problem], layout: LayoutName, temperature: float) -> Iterator[Generation]:
        decode = DecodeConfig(layout=layout, max_new_tokens=self.config.code_tokens)
        for start in range(0, len(asked), self.config.code_batch_size):
            group = asked[start : start + self.config.code_batch_size]
            ids = self.ids(group)
            yield from self.model.decode(ids, decode, self._hooks(group, ids, temperature, start))
            self.watch(len(group))

    def _hooks(
        self, group: Sequence[Problem], prompts: Sequence[Sequence[int]], temperature: float, start: int
    ) -> GenerationHooks:
        """`start`: answers before these. Each answer has a seed of its own, whatever layout and batch it is in."""
        sample = SampleConfig(temperature=temperature, top_p=self.config.code_top_p, seed=self.config.code_seed)
        rule = Rule.of(sample, PenaltyConfig(), 0)
        decode = self.model.require_tokenizer().decode

        def chooser(indices: Sequence[int]) -> Chooser:
            return Mixed([rule] * len(indices), SeededNumbers(sample.seed, [start + index for index in indices]))

        def stop(index: int, text: list[int]) -> bool:
            answer = decode(text[len(prompts[index]) :], skip_special_tokens=True)
            return group[index].ends(answer, self.config.chats)

        return GenerationHooks(chooser, stop=stop)

    def _text(self, answer: Generation) -> str:
        text: str = self.model.require_tokenizer().decode(answer.tokens, skip_special_tokens=True)
        return text

    @property
    def _limits(self) -> Limits:
        return Limits(self.config.code_seconds, self.config.code_memory_mib * 2**20)


def _passed(asked: Sequence[Problem], fared: Sequence[Outcome]) -> dict[str, int]:
    """Right answers to each problem, in order."""
    passed = dict.fromkeys((problem.name for problem in asked), 0)
    for problem, outcome in zip(asked, fared):
        passed[problem.name] += outcome.verdict == "passed"
    return passed


def _rate(passed: Iterable[int], answers: int, k: int) -> PassRate:
    chances = [pass_at_k(answers, right, k) for right in passed]
    interval = ratio_interval(chances, [1.0] * len(chances)) or (None, None)
    return PassRate(k, sum(chances) / len(chances), *interval)
