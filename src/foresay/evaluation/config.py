"""Settings of what is measured: speed, losslessness, acceptance, quality, forecasts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from foresay.decoding.config import LayoutName
from foresay.decoding.step_costs import SECONDS
from foresay.foundation.errors import require, require_at_least, require_kinds


@dataclass(frozen=True, slots=True)
class AdviseConfig:
    """What is measured and assumed."""

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Prompts decoded together."""
    contexts: tuple[int, ...] = (128,)
    """Tokens cached before a step."""
    seconds: float = SECONDS
    """Most time for each batch size and context length."""
    acceptance: tuple[float, ...] = ()
    """Shares of steps that keep the 1st, 2nd, ... draft: 0.7 0.5 0.35."""
    results: Path | None = None
    """JSON of `foresay bench` or `foresay eval` whose acceptance, by domain, is assumed instead."""

    def __post_init__(self) -> None:
        require(self.seconds > 0, f"seconds is {self.seconds}; give a positive time")
        for name in ("batch_sizes", "contexts"):
            values = getattr(self, name)
            require(min(values, default=0) >= 1, f"{name} is {values}; give one or more numbers from 1 up")
        falling = all(1 >= a >= b >= 0 for a, b in zip((1.0, *self.acceptance), self.acceptance))
        require(falling, f"acceptance is {self.acceptance}; give shares from 1 down to 0, each at most the one before")
        require(not self.acceptance or self.results is None, "acceptance and results were both given; give one of them")


LAYOUTS: tuple[LayoutName, ...] = tuple(layout for layout in get_args(LayoutName) if layout != "plain")
"""All that draft: what is decoded with unless it is said otherwise must be among what is checked."""


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """How much is checked."""

    max_new_tokens: int = 64
    """Most tokens of an answer."""
    batch_sizes: tuple[int, ...] = (8,)
    """Prompts decoded together; every layout is checked at each size."""
    masks: int = 0
    """Masks a block; 0: as trained."""
    layouts: tuple[LayoutName, ...] = LAYOUTS
    """Layouts that are checked."""
    shift: float = 0.25
    """Total variation, between classes of sampled answers, found with 80 % chance: sets how many are drawn."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "max_new_tokens")
        require(min(self.batch_sizes, default=0) >= 1, f"batch_sizes is {self.batch_sizes}; give one or more from 1 up")
        require(len(self.layouts) >= 1, "layouts is empty; give at least one")
        require(0 < self.shift <= 0.5, f"shift is {self.shift}; give a total variation above 0, at most 0.5")

    @property
    def settings(self) -> list["Setting"]:
        """Every layout at every batch size."""
        return [Setting(layout, size) for size in dict.fromkeys(self.batch_sizes) for layout in self.layouts]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to decode all prompts."""

    layout: LayoutName
    batch_size: int

    def groups(self, count: int) -> list[range]:
        """Indices of the prompts that are decoded together."""
        return [range(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """How acceptance is counted."""

    masks: tuple[int, ...] = ()
    """Masks a block; empty: 1 to the trained k."""
    layout: Literal["linear", "quadratic", "tree"] = "quadratic"
    """Where blocks of masks are placed; paper A's Table 1 is quadratic."""
    batch_size: int = 8
    """Prompts decoded together."""
    paper_steps: int = 100
    """Steps of a prompt that count by the paper's protocol."""
    max_new_tokens: int = 256
    """Most tokens of an answer."""
    samples: int = 1
    """Answers of each benchmark that are kept as text, with every step."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 1, "batch_size", "paper_steps", "max_new_tokens")
        require_at_least(self, 0, "samples")
        require(min(self.masks, default=1) >= 1, f"masks is {self.masks}; give numbers from 1 up")


@dataclass(frozen=True, slots=True)
class HarnessConfig:
    """Which tasks are run, and how much of them."""

    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness by name, or YAML files of tasks."""
    include_path: Path | None = None
    """Folder with YAML files of further tasks."""
    limit: int = 0
    """First documents of each task; 0: all."""
    fewshot: int = -1
    """Examples in front of each document; -1: as the task says."""
    task_batch_size: int = 8
    """Documents that the harness puts into a batch."""
    run_code: bool = False
    """Let tasks run code that the model wrote (HumanEval), without a sandbox."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "limit")
        require_at_least(self, 1, "task_batch_size")
        require(self.fewshot >= -1, f"fewshot is {self.fewshot}; give 0 or more, or -1 to leave it to the task")


@dataclass(frozen=True, slots=True)
class CodeConfig:
    """Which problems are answered with code, and how the code is run."""

    code: tuple[str, ...] = ()
    """Problems with tests, as HumanEval and MBPP write them: files, folders or hub ids, with settings as in `foresay
    train --data` (`openai/openai_humaneval` with `split=test`)."""
    code_limit: int = 0
    """First problems of each set; 0: all."""
    code_prompts: Literal["completion", "chat"] = "completion"
    """Ask for a text that goes on, or as a user does, through the chat template."""
    code_answers: int = 1
    """Answers to each problem."""
    pass_at: tuple[int, ...] = (1,)
    """The k of pass@k, each at most the number of answers."""
    code_temperatures: tuple[float, ...] = (0.0,)
    """Temperatures, each measured; 0 is greedy."""
    code_top_p: float = 0.95
    """Where it is sampled: draw from the fewest tokens that hold this share of the chance."""
    code_seed: int = 0
    """Seed of the first answer; each further one has the next."""
    code_layouts: tuple[LayoutName, ...] = ("planned",)
    """Layouts beside plain decoding."""
    code_batch_size: int = 8
    """Answers that are generated together."""
    code_tokens: int = 512
    """Most tokens of an answer."""
    code_seconds: int = 5
    """CPU seconds that a program may take."""
    code_memory_mib: int = 512
    """Memory that a program may take, in MiB."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 0, "code_limit", "code_seed")
        require_at_least(self, 1, "code_answers", "code_batch_size", "code_tokens", "code_seconds")
        require_at_least(self, 64, "code_memory_mib")
        require(min(self.code_temperatures, default=-1) >= 0, "code_temperatures needs one or more from 0 up")
        require(0 < self.code_top_p <= 1, f"code_top_p is {self.code_top_p}; give a share above 0, at most 1")
        fits = min(self.pass_at, default=0) >= 1 and max(self.pass_at) <= self.code_answers
        require(fits, f"pass_at is {self.pass_at} with {self.code_answers} answers; give numbers from 1 to the answers")
        alike = self.code_answers > 1 and 0 in self.code_temperatures
        require(not alike, "greedy answers to a problem are all alike; give --code-answers 1, or temperatures above 0")

    @property
    def all_layouts(self) -> tuple[LayoutName, ...]:
        """Plain decoding, and the others."""
        return tuple(dict.fromkeys(("plain", *self.code_layouts)))

    def total(self, problems: int) -> int:
        """Answers to so many problems in all."""
        return problems * self.code_answers * len(self.code_temperatures) * len(self.all_layouts)

    @property
    def chats(self) -> bool:
        """Whether problems are asked as a user does."""
        return self.code_prompts == "chat"


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What is measured."""

    layouts: tuple[LayoutName, ...] = ("linear", "quadratic", "planned")
    """Layouts to stand beside transformers and plain decoding."""
    masks: tuple[int, ...] = ()
    """Masks a block, each measured in each layout but `planned`; empty: the trained k."""
    batch_sizes: tuple[int, ...] = (1,)
    """Prompts decoded together; the last batch is filled up from the first prompts."""
    prompt_tokens: tuple[int, ...] = (0,)
    """Lengths of the prompts: other prompts of the domain go in front; 0 leaves them as they are."""
    lookup_tokens: int = 10
    """Tokens that transformers' prompt lookup drafts (at batch size 1, all it can); 0 leaves it out."""
    compile: bool = False
    """Run the base's decoder layers compiled (torch.compile) in decoding steps: up to a minute the first time, some
    seconds whenever a model is opened after that. On a CPU it needs a C++ compiler. The output stays."""
    graphs: bool = True
    """On CUDA, record each shape of a step as a CUDA graph when it first runs, and replay it; the output stays."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""
    repeats: int = 3
    """Times that everything is measured."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "max_new_tokens", "repeats")
        require_at_least(self, 0, "lookup_tokens")
        for name, least in (("batch_sizes", 1), ("prompt_tokens", 0)):
            values = getattr(self, name)
            require(bool(values), f"{name} is empty; give at least one number")
            require(min(values) >= least, f"{name} has {min(values)}; give {least} or more")
