"""Every setting and its default, once. Command line, YAML, saved JSON and docs are derived from these classes."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from foresay.errors import ConfigError

DType = Literal["float32", "bfloat16", "float16"]
FixedLayout = Literal["plain", "linear", "quadratic", "tree"]
LayoutName = Literal["plain", "linear", "quadratic", "tree", "planned"]
Parallel = Literal["none", "ddp", "fsdp"]


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_choices(settings: Any) -> None:
    """Raise `ConfigError` unless every field of a `Literal` type holds one of its values."""
    for name, kind in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), get_args(kind)
        if get_origin(kind) is Literal:
            require(value in choices, f"{name} is {value!r}; give one of {', '.join(choices)}")


def require_at_least(settings: Any, least: float, *names: str) -> None:
    """Raise `ConfigError` unless these fields are `least` or more."""
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{name} is {value}; give {least} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class MTPConfig:
    """What a multi-token model is; saved with it in `foresay.json`."""

    num_masks: int = 8
    """Masks in a block, k: the most tokens drafted behind one anchor."""
    rank: int = 64
    """Rank of the gated LoRA (paper A: 128)."""
    alpha: float = 0.0
    """LoRA scale is alpha / rank; 0 stands for alpha = rank, the scale 1 of the paper's formula."""
    sampler: Literal["paper", "residual"] = "residual"
    """Sampler head: `paper` (two Linear-SiLU-LayerNorm blocks) or `residual` (starts as the base head)."""
    train_masks: bool = True
    """Train the mask embeddings; false keeps them at their random start (the paper's literal reading)."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(self.num_masks >= 1, f"num_masks is {self.num_masks}; a block needs at least 1 mask")
        require(self.rank >= 1, f"rank is {self.rank}; LoRA needs a rank of at least 1")
        require(self.alpha >= 0, f"alpha is {self.alpha}; give a positive alpha, or 0 for alpha = rank")

    @property
    def lora_alpha(self) -> float:
        """Alpha as PEFT writes it."""
        return self.alpha or float(self.rank)

    @property
    def scale(self) -> float:
        """Factor in front of the low-rank product."""
        return self.lora_alpha / self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights and targets of the training loss (paper A, section 4; `base_argmax` is ours)."""

    base_weight: float = 1.0
    """Weight of the cross-entropy of the base head."""
    sampler_weight: float = 1.0
    """Weight of the cross-entropy of the sampler head."""
    consistency_weight: float = 1.0
    """Weight of the latent consistency loss."""
    consistency_over: Literal["mean", "sum"] = "mean"
    """Latent consistency takes the `mean` or the `sum` over the width of the states (paper A does not say)."""
    hard_weight: float = 1.0
    """Weight, in the loss of either head, of the cross-entropy with the hard target."""
    kl_weight: float = 0.0
    """Weight, in the loss of either head, of the KL divergence from the base's distribution at the mask's position."""
    variation_weight: float = 0.0
    """Weight, in the loss of either head, of the total variation to that distribution: what sampling rejects."""
    teacher_temperature: float = 1.0
    """Divides the base's logits before it is distilled; towards 0 the KL becomes the hard target `base_argmax`."""
    position_weights: tuple[float, ...] = ()
    """Weights of mask 1, 2, ... in the losses of both heads, the last for all behind it; none: all alike."""
    target: Literal["label", "base_argmax"] = "base_argmax"
    """Hard target of a mask row: the data's `label`, or the base's own argmax there (what greedy decoding verifies)."""
    real_rows: bool = False
    """Average both cross-entropies over real rows too, as paper A writes; they never draft."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_at_least(self, 0, "base_weight", "sampler_weight", "consistency_weight")
        require_at_least(self, 0, "hard_weight", "kl_weight", "variation_weight")
        require(self.teacher_temperature > 0, f"teacher_temperature is {self.teacher_temperature}; give a positive one")
        weights = self.position_weights
        require(
            min(weights, default=1) >= 0 and max(weights, default=1) > 0,
            f"position_weights are {weights}; give weights of 0 or more, not all of them 0",
        )

    @property
    def distils(self) -> bool:
        """Some loss needs the base's whole distribution."""
        return self.kl_weight > 0 or self.variation_weight > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How an adapter is trained."""

    steps: int = 500
    """Optimizer steps."""
    sequences: int = 8
    """Sequences in a step."""
    pack: bool = False
    """Put several examples into a sequence, up to `max_length` tokens; none sees another, each has its own anchors."""
    anchors: int = 24
    """Anchors sampled in each example (0: every token that carries loss); mask rows = examples x anchors x k."""
    chunk_anchors: int = 0
    """Anchors of a sequence in one micro-chunk of the mask pass (0: all); changes memory, never the result."""
    curriculum_steps: int = 0
    """Steps over which blocks grow from 1 mask to all k; 0: all from the start."""
    max_length: int = 512
    """Longest training sequence in tokens; longer ones are cut."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up: falls to a hundredth as a `cosine`, or stays `constant` (paper A)."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip: float = 1.0
    """Largest gradient norm."""
    eval_every: int = 0
    """Steps between real decodes of held-out prompts; 0 decodes at the end only."""
    save_every: int = 100
    """Steps between checkpoints: the adapter as it is, and the run's state beside it; 0 saves at the end only."""
    keep_checkpoints: int = 2
    """Checkpoints of the run's state that are kept while it runs."""
    parallel: Parallel = "none"
    """Processes under torchrun: `none`, `ddp` (sequences divided) or `fsdp` (the base's layers sharded too)."""
    heldout: int = 16
    """Examples kept out of training for the decodes."""
    seed: int = 0
    """Seed of masks, LoRA, data order and anchors."""
    dtype: DType = "float32"
    """Dtype of the frozen base; the adapter trains in float32."""
    save_dtype: DType = "float32"
    """Dtype of the saved adapter."""

    def __post_init__(self) -> None:
        require_choices(self)
        for name in ("steps", "sequences", "max_length", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; give at least 1")
        require_at_least(
            self, 0, "anchors", "chunk_anchors", "curriculum_steps", "warmup_steps", "eval_every", "save_every"
        )
        require_at_least(self, 0, "heldout", "weight_decay")
        require(0 <= self.seed < 2**63, f"seed is {self.seed}; give a number from 0 to 2**63 - 1")
        require(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; give a positive one")
        require(self.clip > 0, f"clip is {self.clip}; give a positive gradient norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """How data are read."""

    columns: tuple[str, ...] = ()
    """Columns under unusual names, as OURS=THEIRS: prompt=Question response=Reply (also messages, text, domain)."""
    strict: bool = False
    """Refuse the data for a single bad row instead of counting it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    """How text is generated."""

    layout: LayoutName = "planned"
    """Where masks stand: nowhere (`plain`), behind the last draft (`linear`) or every draft (`quadratic`); `tree` is
    quadratic with several drafts for a place; `planned` takes what pays most here, by steps measured once on this
    machine and by what is being accepted."""
    masks: int = 0
    """Masks in a block, at most the trained k; 0 takes the trained k (`planned`: the most it may take)."""
    branches: int = 3
    """Most drafts behind one token (`tree`)."""
    nodes: int = 16
    """Most drafts in a step (`tree`); its call has at most (nodes + 1) x (masks + 1) rows."""
    shortlist: int = 0
    """Draft from the so many tokens that the base head ranks first behind each mask; 0 from all. The output stays."""
    max_new_tokens: int = 128
    """Most tokens generated for a prompt; the base's context may end it sooner."""
    compile: bool = False
    """Send steps through torch.compile: each layout takes some seconds when it first runs, then steps are faster."""
    ignore_stop: bool = False
    """Generate past the stop token (benchmarks of fixed length)."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(self.masks >= 0, f"masks is {self.masks}; give 1 or more, or 0 for the trained number")
        require_at_least(self, 1, "branches", "nodes")
        short = 0 < self.shortlist < self.branches
        require(not short, f"shortlist is {self.shortlist} for {self.branches} branches; give as many or more, or 0")
        require(self.max_new_tokens >= 1, f"max_new_tokens is {self.max_new_tokens}; give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How tokens are chosen."""

    temperature: float = 0.0
    """Divides the logits before a token is drawn; 0 takes the best token, always."""
    top_k: int = 0
    """Draw from the k best tokens; 0 from all."""
    top_p: float = 1.0
    """Draw from the fewest tokens that hold this share of the chance."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the best token's chance."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "temperature", "top_k", "min_p", "seed")
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}; give a share above 0, at most 1")
        require(self.min_p <= 1, f"min_p is {self.min_p}; give a share of at most 1")
