"""Options that several verbs share: which model is opened, and which prompts are decoded."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foresay.cli.flags import flags_of
from foresay.cli.given import Given
from foresay.cli.terminal import ERR
from foresay.data.benchmarks import benchmarks_of
from foresay.data.prompts import Prompt, Split, embedded_prompts, file_prompts, first_of_each_domain, unread_of
from foresay.decoding.answers import check_drafting, check_drawn
from foresay.decoding.config import DecodeConfig, PenaltyConfig, SampleConfig
from foresay.evaluation.config import BenchConfig, CheckConfig
from foresay.foundation.errors import require, require_at_least
from foresay.model import MultiTokenModel
from foresay.models.artefact.folder import as_trained, base_of, read_settings
from foresay.models.base.load import adapter_folder, open_base
from foresay.models.config import DTYPE, DType, LoadConfig, LoadDType
from foresay.serving.rules import Rules, own_rules

MOST_THREADS = 1024
"""OpenMP ends the process where it cannot start so many as it was told."""
C = TypeVar("C", BenchConfig, CheckConfig)
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Options = Annotated[Given, tyro.conf.Suppress]
"""A field `given` of this type, which `main` fills: which options stood on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threaded:
    """What computes on a CPU."""

    threads: int = 0
    """CPU threads; 0 leaves it to torch."""

    def use_threads(self) -> None:
        """From now on, in this process. Raises ConfigError."""
        require(
            0 <= self.threads <= MOST_THREADS,
            f"threads is {self.threads}; give 1 or more (this machine has {os.cpu_count()} cores), at most "
            f"{MOST_THREADS}, or 0 to leave it to torch",
        )
        if self.threads:
            torch.set_num_threads(self.threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening(Threaded):
    """How a model is opened."""

    base: str = ""
    """Base to use instead of the one the model names: a folder, a GGUF file, a hub id, smollm2 or nano."""
    dtype: LoadDType = DTYPE
    """Dtype of base and adapter; `auto`: the checkpoint's own, on a CPU without bfloat16 products float32."""
    revision: str = ""
    """Commit, branch or tag of a MODEL that is a hub id; empty: its main branch."""
    loading: LoadConfig = field(default_factory=LoadConfig)

    def open(self, folder: str, dtype: DType | None = None) -> MultiTokenModel:
        """The model in `folder`, in `dtype` where another one than this command's is needed; said on stderr."""
        self.use_threads()
        model = MultiTokenModel.from_pretrained(
            folder,
            self.base or None,
            dtype=dtype or self.dtype,
            loading=self.loading,
            revision=self.revision or None,
        )
        tell_loaded(model)
        return model

    def open_to_decode(self, folder: str, decode: DecodeConfig, given: Given) -> MultiTokenModel:
        """As `open`; that layers will be compiled, before the first answer, is said on stderr too."""
        check_drafting(decode, given)
        model = self.open(folder)
        if decode.compile:
            ERR.print("compiling decoder layers: up to a minute the first time, some seconds after that", style="dim")
        return model

    def bare(self, folder: str) -> PreTrainedModel:
        """The base of the model in `folder`, by itself, with its user's LoRA if it has one."""
        self.use_threads()
        settings = read_settings(adapter_folder(folder, self.revision or None))
        base = self.base or base_of(settings, folder)
        return open_base(base, self.dtype, as_trained(self.loading, settings), settings.base_adapter)[1]


GenerationRules = Literal["auto", "none"]


def rules_for(
    model: MultiTokenModel, wanted: GenerationRules, sample: SampleConfig, penalties: PenaltyConfig, given: Given
) -> Rules:
    """How tokens are chosen: by the flags, and (`auto`) where they are silent by the base's own settings; told."""
    rules = Rules(sample, penalties)
    if wanted == "auto":
        rules = own_rules(model.base.model.generation_config, sample, penalties, given)
    check_drawn(rules.sample, given)
    if rules.sentence:
        ERR.print(f"{rules.sentence} (--generation-config none: the flags alone)", style="dim", highlight=False)
    return rules


def needed(command: Any, verb: str) -> Path:
    """The `out` of a command that has all it needs (`flags.NEEDED`). Raises ConfigError where something is missing."""
    missing = [flag.spellings for flag in flags_of(type(command)) if flag.required and not getattr(command, flag.name)]
    require(not missing, f"foresay {verb} needs {' and '.join(missing)} too (foresay {verb} --help says what each is)")
    out: Path = command.out
    return out


def read_prompts(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """Every prompt of a file; what its rows hold beside is said on stderr. Raises DataError."""
    prompts = file_prompts(path, tokenizer)
    if unread := unread_of(prompts):
        ERR.print(unread, style="dim", highlight=False)
    return prompts


def tell_loaded(model: MultiTokenModel) -> None:
    """Say on stderr in what dtype a base was loaded, and where."""
    ERR.print(f"base: {model.loaded}", style="dim", highlight=False)


def filled(config: C, given: Given, **values: Any) -> C:
    """`config` with `values`, but an option that was given stands, though it be the default."""
    return replace(config, **{name: value for name, value in values.items() if name not in given})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which prompts are decoded."""

    prompts: Path | None = None
    """File with a prompt a row (messages, prompt or text); without it, the embedded held-out prompts, which for nano
    and models without a chat template are easy ones."""
    benchmarks: tuple[str, ...] = ()
    """Benchmarks instead, as DOMAIN=SOURCE: math=gsm8k.jsonl chat=google/IFEval,split=train (a file, a folder or a hub
    id, with settings as in `foresay train --data`), or `paper`: those of paper A that the hub has."""
    per_domain: int = 0
    """The first prompts of each benchmark, or of each domain (of a file, too); 0: a file's all, else a few, or many
    with --full."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "per_domain")
        require(self.prompts is None or not self.benchmarks, "prompts and benchmarks were both given; give one")

    def load(self, model: MultiTokenModel, per_domain: int, split: Split) -> list[Prompt]:
        """The prompts; of each benchmark or embedded domain at most `per_domain` unless set."""
        tokenizer = model.require_tokenizer()
        if self.prompts is not None:
            prompts = read_prompts(self.prompts, tokenizer)
            return first_of_each_domain(prompts, self.per_domain) if self.per_domain else prompts
        if self.benchmarks:
            most = self.per_domain or per_domain
            sets = benchmarks_of(self.benchmarks)
            return [prompt for benchmark in sets for prompt in benchmark.prompts(tokenizer, most)]
        return embedded_prompts(tokenizer, split, self.per_domain or per_domain, model.base_name)
