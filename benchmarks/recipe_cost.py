"""What a recipe will cost on a base that is not at hand: floating-point operations and memory by a formula.

python benchmarks/recipe_cost.py recipes/llama-3.1-8b.yaml --shape llama-3.1-8b

An estimate, not measured: products of matrices and attention only, every sequence as long as `max_length`, every anchor
with all its masks.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
import yaml

from foresay.models.config import MTPConfig
from foresay.training.config import TrainConfig

BUSY = 0.35
"""Share of the peak that training of this kind is taken to reach."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-like base, as its `config.json` gives it."""

    layers: int
    width: int
    hidden: int
    """Width inside the MLP."""
    heads: int
    kv_heads: int
    head: int
    """Width of a head."""
    vocabulary: int
    tied: bool

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the seven linears of a layer."""
        wide, narrow = self.heads * self.head, self.kv_heads * self.head
        attention = [(self.width, wide), *[(self.width, narrow)] * 2, (wide, self.width)]
        return [*attention, *[(self.width, self.hidden)] * 2, (self.hidden, self.width)]

    @property
    def layer_weights(self) -> int:
        """Weights of all layers."""
        return self.layers * sum(ins * outs for ins, outs in self.linears)

    @property
    def unembedding(self) -> int:
        """Weights of the unembedding."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """Weights of the base."""
        return self.layer_weights + self.unembedding * (1 if self.tied else 2)


SHAPES = {
    "llama-3.1-8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, tied=False),
    "qwen3-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151936, tied=True),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a run."""

    adapter_weights: int
    step_rows: int
    """Mask rows in a step."""
    step_flops: float
    run_flops: float
    base_bytes: float
    adapter_bytes: float
    cache_bytes: float
    """The kept K/V of a step."""
    activation_bytes: float
    """What the mask pass keeps for its backward pass."""

    @property
    def bytes(self) -> float:
        """All memory, in one process."""
        return self.base_bytes + self.adapter_bytes + self.cache_bytes + self.activation_bytes

    def hours(self, peak: float) -> float:
        """On a device with so many operations a second at its peak."""
        return self.run_flops / (BUSY * peak) / 3600

    @property
    def lines(self) -> list[str]:
        """As the recipes say it."""
        return [
            f"adapter {self.adapter_weights / 1e6:.0f} M weights; {self.step_rows:,} mask rows a step",
            f"{self.step_flops / 1e12:,.0f} TFLOP a step, {self.run_flops / 1e18:.2f} EFLOP in all: "
            f"{self.hours(990e12):.1f} hours of one H100 ({BUSY:.0%} of 990 TFLOP/s)",
            f"memory {self.bytes / 1e9:.0f} GB: base {self.base_bytes / 1e9:.1f}, adapter with AdamW "
            f"{self.adapter_bytes / 1e9:.1f}, K/V {self.cache_bytes / 1e9:.1f}, "
            f"activations {self.activation_bytes / 1e9:.1f}",
        ]


def cost(shape: Shape, mtp: MTPConfig, train: TrainConfig) -> Cost:
    """Of `train.steps` steps."""
    width, rank = shape.width, mtp.rank
    lora = shape.layers * rank * sum(ins + outs for ins, outs in shape.linears)
    sampler = 3 * width * width
    adapter = lora + sampler + mtp.num_masks * width
    tokens = train.sequences * train.max_length
    anchors = train.sequences * (train.anchors or train.max_length)
    rows = anchors * mtp.num_masks
    attention = 4 * shape.layers * shape.heads * shape.head * train.max_length
    # A product takes two operations a weight. The base pass is one forward; it predicts at every token.
    base = tokens * (2 * (shape.layer_weights + shape.unembedding) + attention / 2)
    # A mask row: forward, and as much again backward through frozen weights; trained ones take a third share. Both
    # heads unembed.
    frozen = 4 * (shape.layer_weights + 2 * shape.unembedding) + 3 * attention
    masks = rows * (frozen + 6 * (lora + sampler))
    # Kept for the backward pass, in bytes for each row and layer: norms, q, k, v, attention, MLP in the base's two
    # bytes, and the inputs of the LoRA pairs in float32.
    wide, narrow = shape.heads * shape.head, shape.kv_heads * shape.head
    half = 2 * (6 * width + 2 * wide + 2 * narrow + 4 * shape.hidden)
    exact = 4 * (2 * width + wide + shape.hidden + 7 * rank)
    chunk = rows * train.chunk_anchors // train.anchors if train.chunk_anchors and train.anchors else rows
    return Cost(
        adapter_weights=adapter,
        step_rows=rows,
        step_flops=base + masks,
        run_flops=train.steps * (base + masks),
        base_bytes=shape.weights * (4 if train.dtype == "float32" else 2),
        adapter_bytes=16 * adapter,
        cache_bytes=tokens * shape.layers * 2 * narrow * 2,
        activation_bytes=chunk * shape.layers * (half + exact),
    )


def of_recipe(path: Path, shape: str) -> Cost:
    """Cost of a recipe on the base called `shape`."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {kind: {name: content[name] for name in kind.__dataclass_fields__ if name in content} for kind in KINDS}
    return cost(SHAPES[shape], MTPConfig(**known[MTPConfig]), TrainConfig(**known[TrainConfig]))


KINDS = (MTPConfig, TrainConfig)


def main(recipe: tyro.conf.Positional[Path], shape: str = "llama-3.1-8b") -> None:
    """Print the estimate."""
    for line in of_recipe(recipe, shape).lines:
        print(line)


if __name__ == "__main__":
    tyro.cli(main)
