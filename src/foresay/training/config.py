"""Settings of training: the loop, losses, pretraining, and answers made by the base."""

import math
from dataclasses import dataclass
from typing import Literal

from foresay.foundation.errors import require, require_at_least, require_kinds
from foresay.models.config import DTYPE, DType, LoadDType


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilConfig:
    """How answers are kept."""

    shard_rows: int = 256
    """Rows of the data in one file of answers: what a kill can lose at most."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 1, "shard_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Who answers."""

    engine: Literal["local", "vllm", "ray"] = "local"
    """`local`: this process; `vllm`: vLLM, here; `ray`: workers on a Ray cluster, each as `local` is."""
    batch_size: int = 32
    """Prompts answered together (`local` and `ray`)."""
    workers: int = 0
    """Workers (`ray`), each with a base of its own; 0: one for each GPU of the cluster, or one where there is none."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 1, "batch_size")
        require_at_least(self, 0, "workers")


Parallel = Literal["none", "ddp", "fsdp"]
OptimizerName = Literal["adamw", "muon"]
TrackerName = Literal["auto", "tensorboard", "wandb", "trackio", "none"]


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
    position_weights: tuple[float, ...] = (1.0, 0.6, 0.36, 0.22, 0.13, 0.08, 0.05, 0.03)
    """Weights of mask 1, 2, ... in the losses of both heads, the last for all after it; none: all alike. A draft
    counts only where all before it were accepted, which in paper A's table 1 falls like this on average."""
    target: Literal["label", "base_argmax"] = "base_argmax"
    """Hard target of a mask row: the data's `label`, or the base's own argmax there (what greedy decoding verifies)."""
    own_loss: str = ""
    """A loss of your own, as MODULE:FUNCTION, added in the loss of either head: called with logits (N, V), targets (N,)
    and the base's logits (N, V), it returns what each row pays (N,)."""
    real_rows: bool = False
    """Average both cross-entropies over real rows too, as paper A writes; they never draft."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 0, "base_weight", "sampler_weight", "consistency_weight")
        require_at_least(self, 0, "hard_weight", "kl_weight", "variation_weight")
        require(self.teacher_temperature > 0, f"teacher_temperature is {self.teacher_temperature}; give a positive one")
        weights = self.position_weights
        require(
            all(0 <= weight < math.inf for weight in weights) and max(weights, default=1) > 0,
            f"position_weights are {weights}; give weights of 0 or more, not all of them 0",
        )

    @property
    def distils(self) -> bool:
        """Some loss needs the base's whole distribution."""
        return self.kl_weight > 0 or self.variation_weight > 0 or bool(self.own_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """What every training loop has; the two kinds of training set their own defaults."""

    steps: int
    """Optimizer steps."""
    optimizer: OptimizerName = "adamw"
    """What moves the weights: `adamw`, or `muon` for matrices between states, with AdamW for the rest."""
    learning_rate: float
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up: falls as a `cosine`, or stays `constant` (paper A)."""
    final_rate: float
    """Share of the peak learning rate at which the cosine ends."""
    warmup_steps: int
    """Steps of linear warm-up."""
    weight_decay: float
    """Decoupled weight decay, of matrices only."""
    clip: float = 1.0
    """Largest gradient norm."""
    eval_every: int = 0
    """Steps between measurements on what is held out; 0 measures at the end only."""
    save_every: int = 100
    """Steps between checkpoints of the run's state; 0 keeps none."""
    keep_checkpoints: int = 2
    """Checkpoints of the run's state that are kept while it runs."""
    parallel: Parallel = "none"
    """Processes under torchrun: `none`, `ddp` (each step's rows divided) or `fsdp` (layers sharded too)."""
    tracker: TrackerName = "auto"
    """Where figures are logged: `tensorboard` (to OUT.tensorboard), `wandb`, `trackio` or `none`; `auto` is tensorboard
    where it is installed."""
    heldout: int
    """Examples kept out of training."""
    seed: int = 0
    """Seed of all that is drawn."""
    save_dtype: DType = "float32"
    """Dtype of what is saved."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 1, "steps", "keep_checkpoints")
        require_at_least(self, 0, "warmup_steps", "eval_every", "save_every", "weight_decay", "final_rate", "heldout")
        require(0 <= self.seed < 2**63, f"seed is {self.seed}; give a number from 0 to 2**63 - 1")
        rate = self.learning_rate
        require(0 < rate < math.inf, f"learning_rate is {rate}; give a positive one")
        require(self.clip > 0, f"clip is {self.clip}; give a positive gradient norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(LoopConfig):
    """How an adapter is trained."""

    steps: int = 500
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
    final_rate: float = 0.01
    warmup_steps: int = 50
    weight_decay: float = 0.0
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
    parallel: Parallel = "none"
    """Processes under torchrun: `none`, `ddp` (sequences divided) or `fsdp` (the base's layers sharded too)."""
    heldout: int = 16
    """Examples kept out of training for the decodes."""
    seed: int = 0
    """Seed of masks, LoRA, data order and anchors."""
    dtype: LoadDType = DTYPE
    """Dtype of the frozen base (the adapter trains in float32); `auto`: the checkpoint's own, on a CPU without bfloat16
    products float32, and float32 for heads."""
    save_dtype: DType = "float32"
    """Dtype of the saved adapter."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        require_at_least(self, 1, "sequences", "max_length", "eval_tokens", "eval_batch")
        require_at_least(self, 0, "anchors", "chunk_anchors", "curriculum_steps")
        often = self.keep == "last" or self.eval_every >= 1
        require(
            often, "keep is best and eval_every is 0; give the steps between decodes with --eval-every, or keep last"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig(LoopConfig):
    """How a whole model is trained."""

    steps: int = 1000
    batch_tokens: int = 8192
    """Tokens in a step."""
    length: int = 512
    """Tokens in a row; documents are packed one after the other."""
    answers_only: bool = False
    """Loss on answers alone, where rows tell them from prompts (prompt and response, chats); texts carry it whole. The
    bits per byte are of prompts too."""
    chunk_rows: int = 0
    """Rows that run at once (0: all of a step); changes memory, never the result."""
    added_layers: bool = False
    """Put heads 2..n on top of the layers that the config has; else the trunk gives up a layer for each."""
    continued: bool = False
    """Go on from the weights in CONFIG, a model with heads or an ordinary one; fewer heads drop the farthest, more
    begin as copies of head 1 on top."""
    learning_rate: float = 3e-4
    final_rate: float = 0.03
    warmup_steps: int = 100
    weight_decay: float = 0.1
    eval_every: int = 0
    """Steps between measurements of bits per byte on held-out examples; 0 measures at the end only."""
    parallel: Parallel = "none"
    """Processes under torchrun: `none`, `ddp` (rows divided) or `fsdp` (layers and optimizer state sharded too)."""
    heldout: int = 64
    """Examples kept out of training for the bits per byte."""
    seed: int = 0
    """Seed of weights and data order."""
    dtype: Literal["auto", "float32", "bfloat16"] = DTYPE
    """Dtype of products while training (weights are float32); `auto`: bfloat16 where the config names it and the device
    has such products, else float32."""
    save_dtype: DType = "float32"
    """Dtype of the saved model."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        require_at_least(self, 1, "batch_tokens", "heldout")
        require_at_least(self, 0, "chunk_rows")
        require(self.length >= 2, f"length is {self.length}; a row needs at least 2 tokens")
        require(
            self.batch_tokens >= self.length,
            f"batch_tokens is {self.batch_tokens} for rows of {self.length} tokens; give at least one row",
        )
        require(
            not (self.continued and self.added_layers),
            "continued and added_layers were both given, and heads always come on top of a model that is there; "
            "leave out added_layers",
        )

    @property
    def rows(self) -> int:
        """Rows in a step."""
        return self.batch_tokens // self.length


def warm_up_notes(config: TrainConfig | PretrainConfig) -> list[str]:
    """A sentence for a run that ends before it is warm; none for others.

    >>> warm_up_notes(TrainConfig(steps=500))
    []
    """
    if config.steps > config.warmup_steps:
        return []
    return [
        f"the learning rate warms up for {config.warmup_steps} steps and the run has {config.steps}, so it never "
        f"reaches {config.learning_rate:g}; give fewer --warmup-steps or more --steps"
    ]
