"""Every setting and its default, once. Command line, YAML, saved JSON and docs are derived from these classes."""

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from foresay.errors import ConfigError

DType = Literal["float32", "bfloat16", "float16"]
FixedLayout = Literal["plain", "linear", "quadratic", "tree"]
LayoutName = Literal["plain", "linear", "quadratic", "tree", "planned"]
Parallel = Literal["none", "ddp", "fsdp"]
OptimizerName = Literal["adamw", "muon"]
TrackerName = Literal["auto", "tensorboard", "wandb", "trackio", "none"]
Quantize = Literal["auto", "none", "int8", "int4", "nf4"]


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
class LoadConfig:
    """How a base is loaded."""

    base_adapter: str = ""
    """PEFT LoRA of your own that belongs to the base (a folder or hub id): it acts on every row, and lossless means
    equal to base and LoRA together. A BASE that is a PEFT LoRA itself names its base."""
    quantize: Quantize = "auto"
    """Weights of the base: `int8`, `int4` (torchao, the latter on CUDA only), `nf4` (bitsandbytes) or `none`; `auto`
    leaves them as they come, or quantises as an adapter was trained."""
    device: str = ""
    """Device of base and adapter, as torch names it; empty: CUDA where there is one, else the CPU."""

    def __post_init__(self) -> None:
        require_choices(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MTPConfig:
    """What a multi-token model is; saved with it in `foresay.json`."""

    num_masks: int = 8
    """Masks in a block, k: the most tokens drafted behind one anchor."""
    rank: int = 64
    """Rank of the gated LoRA (paper A: 128)."""
    alpha: float = 0.0
    """LoRA scale is alpha / rank; 0 stands for alpha = rank, the scale 1 of the paper's formula."""
    sampler: Literal["paper", "residual", "none"] = "residual"
    """Sampler head: `paper` (two Linear-SiLU-LayerNorm blocks), `residual` (starts as the base head), or `none`: drafts
    come from the base head alone."""
    train_masks: bool = True
    """Train the mask embeddings; false keeps them at their random start (the paper's literal reading)."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(self.num_masks >= 1, f"num_masks is {self.num_masks}; a block needs at least 1 mask")
        require(self.rank >= 1, f"rank is {self.rank}; LoRA needs a rank of at least 1")
        require(self.alpha >= 0, f"alpha is {self.alpha}; give a positive alpha, or 0 for alpha = rank")

    @property
    def drafts(self) -> int:
        """Most tokens drafted behind one another."""
        return self.num_masks

    @property
    def lora_alpha(self) -> float:
        """Alpha as PEFT writes it."""
        return self.alpha or float(self.rank)

    @property
    def scale(self) -> float:
        """Factor in front of the low-rank product."""
        return self.lora_alpha / self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsConfig:
    """Which heads a model has (paper B); saved with it in `foresay.json`."""

    heads: int = 1
    """Heads, n: tokens predicted at every position, the next one included; 1 is an ordinary language model."""
    variant: Literal["parallel", "causal", "anticausal", "linear"] = "parallel"
    """What a head reads: the trunk (`parallel`), the head before it (`causal`) or behind it (`anticausal`), each being
    one decoder layer; `linear` heads are one matrix on the trunk."""
    replicated: bool = False
    """Give every head but the first an unembedding of its own (the paper's byte-level models)."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_at_least(self, 1, "heads")

    @property
    def drafts(self) -> int:
        """Most tokens drafted behind one another."""
        return self.heads - 1

    @property
    def layers(self) -> int:
        """Decoder layers that are heads."""
        return 0 if self.variant == "linear" else self.heads


Family = MTPConfig | HeadsConfig
"""What a model of either family is."""


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


def require_pace(config: "TrainConfig | PretrainConfig") -> None:
    """Raise `ConfigError` unless the settings that every training loop has make sense."""
    require_at_least(config, 0, "warmup_steps", "eval_every", "save_every", "weight_decay", "final_rate")
    require(0 <= config.seed < 2**63, f"seed is {config.seed}; give a number from 0 to 2**63 - 1")
    require(config.learning_rate > 0, f"learning_rate is {config.learning_rate}; give a positive one")
    require(config.clip > 0, f"clip is {config.clip}; give a positive gradient norm")


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
    optimizer: OptimizerName = "adamw"
    """What moves the weights: `adamw`, or `muon` for matrices between states, with AdamW for the rest."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up: falls as a `cosine`, or stays `constant` (paper A)."""
    final_rate: float = 0.01
    """Share of the peak learning rate at which the cosine ends."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay, of matrices only."""
    clip: float = 1.0
    """Largest gradient norm."""
    eval_every: int = 0
    """Steps between real decodes of held-out prompts (quadratic, all masks); 0 decodes at the end only."""
    eval_tokens: int = 64
    """Most tokens that such a decode generates for a prompt."""
    eval_batch: int = 8
    """Prompts that it decodes together."""
    keep: Literal["last", "best"] = "last"
    """Which adapter is saved: the `last` one, or that which decoded `best` (most tokens per step, mean of domains)."""
    save_every: int = 100
    """Steps between checkpoints: the adapter as it is (`keep` best: as it decoded best), and the run's state beside
    it; 0 saves at the end only."""
    keep_checkpoints: int = 2
    """Checkpoints of the run's state that are kept while it runs."""
    parallel: Parallel = "none"
    """Processes under torchrun: `none`, `ddp` (sequences divided) or `fsdp` (the base's layers sharded too)."""
    tracker: TrackerName = "auto"
    """Where figures are logged: `tensorboard` (to OUT.tensorboard), `wandb`, `trackio` or `none`; `auto` is tensorboard
    where it is installed."""
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
        for name in ("steps", "sequences", "max_length", "keep_checkpoints", "eval_tokens", "eval_batch"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; give at least 1")
        often = self.keep == "last" or self.eval_every >= 1
        require(
            often, "keep is best and eval_every is 0; give the steps between decodes with --eval-every, or keep last"
        )
        require_at_least(self, 0, "anchors", "chunk_anchors", "curriculum_steps")
        require_at_least(self, 0, "heldout")
        require_pace(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """How a whole model is trained from random weights."""

    steps: int = 1000
    """Optimizer steps."""
    batch_tokens: int = 8192
    """Tokens in a step."""
    length: int = 512
    """Tokens in a row; documents are packed one behind the other."""
    chunk_rows: int = 0
    """Rows that run at once (0: all of a step); changes memory, never the result."""
    added_layers: bool = False
    """Put heads 2..n on top of the layers that the config has; else the trunk gives up a layer for each."""
    optimizer: OptimizerName = "adamw"
    """What moves the weights: `adamw`, or `muon` for matrices between states, with AdamW for the rest."""
    learning_rate: float = 3e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up: falls as a `cosine`, or stays `constant`."""
    final_rate: float = 0.03
    """Share of the peak learning rate at which the cosine ends."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """Decoupled weight decay, of matrices only."""
    clip: float = 1.0
    """Largest gradient norm."""
    eval_every: int = 0
    """Steps between measurements of bits per byte on held-out examples; 0 measures at the end only."""
    save_every: int = 100
    """Steps between checkpoints of the run's state; 0 keeps none."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept while it runs."""
    parallel: Literal["none", "ddp"] = "none"
    """Processes under torchrun: `none` or `ddp` (rows divided)."""
    heldout: int = 64
    """Examples kept out of training for the bits per byte."""
    seed: int = 0
    """Seed of weights and data order."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of products while training; weights are float32."""
    save_dtype: DType = "float32"
    """Dtype of the saved model."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_at_least(self, 1, "steps", "batch_tokens", "keep_checkpoints", "heldout")
        require_at_least(self, 0, "chunk_rows")
        require(self.length >= 2, f"length is {self.length}; a row needs at least 2 tokens")
        require(
            self.batch_tokens >= self.length,
            f"batch_tokens is {self.batch_tokens} for rows of {self.length} tokens; give at least one row",
        )
        require_pace(self)

    @property
    def rows(self) -> int:
        """Rows in a step."""
        return self.batch_tokens // self.length


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """How a model drafts inside vLLM."""

    masks: int = 0
    """Masks behind each request's drafts, at most the trained k; 0 takes the trained k."""
    lengths: Literal["expected", "all"] = "expected"
    """Drafts that stand before the masks: as many as should pay most by the sampler head's own chances, or `all`."""
    busy_requests: int = 0
    """Draft nothing while more requests than this run together; 0: always draft."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_at_least(self, 0, "masks", "busy_requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyConfig:
    """What makes a repeated token less likely."""

    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the answer has said."""
    frequency_penalty: float = 0.0
    """Taken off the logits of a token for each time that the answer has said it."""
    repetition_penalty: float = 1.0
    """Divides positive logits of tokens in the prompt or the answer, and multiplies negative ones."""

    def __post_init__(self) -> None:
        require(self.repetition_penalty > 0, f"repetition_penalty is {self.repetition_penalty}; give a positive one")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """How requests share the model."""

    sequences: int = 16
    """Most answers that are generated at once; each has slots for `max_length` tokens."""
    waiting: int = 256
    """Most answers that wait for a place; those who come then are sent away."""
    max_length: int = 0
    """Most tokens of prompt and answer together; 0: what the base's context allows."""
    prefill_tokens: int = 2048
    """Most rows of a call that reads new prompts, padding included; one prompt may be longer."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "sequences", "prefill_tokens")
        require_at_least(self, 0, "waiting", "max_length")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """How a model is served."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is heard on this machine alone."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    name: str = ""
    """What requests call the model; empty: the last part of its folder."""
    api_key: str = ""
    """Key that requests must bear; empty: the environment's FORESAY_API_KEY, or none."""
    body_bytes: int = 1_000_000
    """Longest body of a request."""
    timeout_seconds: float = 300.0
    """Longest time from a request to the end of its answer."""
    drain_seconds: float = 30.0
    """Time that answers have to end by themselves when the server is stopped."""

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, f"port is {self.port}; give one from 0 to 65535")
        require_at_least(self, 1, "body_bytes")
        require_at_least(self, 0, "drain_seconds")
        require(self.timeout_seconds > 0, f"timeout_seconds is {self.timeout_seconds}; give a positive time")

    @property
    def key(self) -> str:
        """The key in force; empty: none."""
        return self.api_key or os.environ.get("FORESAY_API_KEY", "")
