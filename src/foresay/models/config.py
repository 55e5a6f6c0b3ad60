"""Settings of models: families, and how a base is loaded."""

from dataclasses import dataclass
from typing import Final, Literal

from foresay.foundation.errors import require, require_at_least, require_kinds

DType = Literal["float32", "bfloat16", "float16"]
LoadDType = Literal["auto", "float32", "bfloat16", "float16"]
"""Dtype that a base is loaded in. `auto`: its checkpoint's own, but on a CPU float32, unless that is bfloat16 and the
processor has bfloat16 products."""
DTYPE: Final = "auto"
"""The default, everywhere."""
Quantize = Literal["auto", "none", "int8", "int4", "nf4"]
Pack = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """How a base is loaded."""

    base_adapter: str = ""
    """PEFT LoRA of your own that belongs to the base (a folder or hub id): it acts on every row, and lossless means
    equal to base and LoRA together. A BASE that is a PEFT LoRA itself names its base."""
    quantize: Quantize = "auto"
    """Weights of the base: `int8`, `int4` (torchao, the latter on CUDA only), `nf4` (bitsandbytes) or `none`; `auto`
    leaves them as they come, or quantises as an adapter was trained."""
    gguf_file: str = ""
    """The file ending in .gguf of the hub id or folder BASE that is the base; a path that ends in .gguf needs none."""
    device: str = ""
    """Device of base and adapter, as torch names it; empty: CUDA where there is one, else the CPU."""
    pack_linears: Pack = "auto"
    """Decode on weights that oneDNN packed once (CPU): `on`, `off`, or `auto`: where a short measurement, made once on
    this machine, finds it faster. The plain weights come back when anything but decoding needs them."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require(
            not self.gguf_file or self.gguf_file.endswith(".gguf"),
            f"gguf_file is {self.gguf_file!r}; give the name of a file that ends in .gguf",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MTPConfig:
    """What a multi-token model is; saved with it in `foresay.json`."""

    num_masks: int = 8
    """Masks in a block, k: the most tokens drafted after one anchor."""
    rank: int = 64
    """Rank of the gated LoRA (paper A: 128)."""
    alpha: float = 0.0
    """LoRA scale is alpha / rank; 0 stands for alpha = rank, the scale 1 of the paper's formula."""
    lora_targets: tuple[str, ...] = ("auto",)
    """Linears that get LoRA: `auto`, those of the MLP, which give most tokens a second (all where experts are no
    linears); `all` of the decoder layers, as in paper A; `attention`, `mlp`, `output` (those that write to the residual
    stream: o_proj and down_proj), or names, whole or their last parts. Fewer make a step cheaper."""
    sampler: Literal["paper", "residual", "none"] = "residual"
    """Sampler head: `paper` (two Linear-SiLU-LayerNorm blocks), `residual` (starts as the base head), or `none`: drafts
    come from the base head alone."""
    train_masks: bool = True
    """Train the mask embeddings; false keeps them at their random start (the paper's literal reading)."""

    def __post_init__(self) -> None:
        require_kinds(self)
        targets = self.lora_targets  # JSON and YAML have lists, and a single one may come as itself
        object.__setattr__(self, "lora_targets", (targets,) if isinstance(targets, str) else tuple(targets))
        require(bool(self.lora_targets), "lora_targets is empty; give auto, all, attention, mlp, output or names")
        require(self.num_masks >= 1, f"num_masks is {self.num_masks}; a block needs at least 1 mask")
        require(self.rank >= 1, f"rank is {self.rank}; LoRA needs a rank of at least 1")
        require(self.alpha >= 0, f"alpha is {self.alpha}; give a positive alpha, or 0 for alpha = rank")

    @property
    def drafts(self) -> int:
        """Most tokens drafted after one another."""
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
    """What a head reads: the trunk (`parallel`), the head before it (`causal`) or after it (`anticausal`), each being
    one decoder layer; `linear` heads are one matrix on the trunk."""
    replicated: bool = False
    """Give every head but the first an unembedding of its own (the paper's byte-level models)."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 1, "heads")

    @property
    def drafts(self) -> int:
        """Most tokens drafted after one another."""
        return self.heads - 1

    @property
    def layers(self) -> int:
        """Decoder layers that are heads."""
        return 0 if self.variant == "linear" else self.heads


Family = MTPConfig | HeadsConfig
"""What a model of either family is."""
