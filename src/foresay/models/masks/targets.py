"""Which linears of a base get LoRA: what `MTPConfig.lora_targets` means there."""

from collections.abc import Iterable

from foresay.foundation.errors import ConfigError

ATTENTION = {"self_attn", "attn", "attention", "self_attention"}
"""What a layer calls its attention."""
OUTPUT = {"o_proj", "out_proj", "c_proj", "dense", "wo", "down_proj", "fc2", "dense_4h_to_h", "w2"}
"""What attention and MLP call the linear that writes to the residual stream."""


def targeted(linears: Iterable[str], targets: Iterable[str]) -> list[str]:
    """Those of `linears` (whole names) that one of `targets` means, in their order.

    A target is `all`, `attention`, `mlp`, `output`, or a name: a whole one or its last parts, as in PEFT. Raises
    ConfigError for one that means none.
    """
    names, chosen = list(linears), set[str]()
    for target in targets:
        found = [name for name in names if _means(target, name)]
        if not found:
            ends = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise ConfigError(
                f"lora_targets has {target!r}, and the base has no such linear; give all, attention, mlp, output or "
                f"some of {', '.join(ends)}"
            )
        chosen.update(found)
    return [name for name in names if name in chosen]


def _means(target: str, name: str) -> bool:
    parts = name.split(".")
    match target:
        case "all":
            return True
        case "attention":
            return not ATTENTION.isdisjoint(parts)
        case "mlp":
            return ATTENTION.isdisjoint(parts)
        case "output":
            return parts[-1] in OUTPUT
    return name == target or name.endswith(f".{target}")
