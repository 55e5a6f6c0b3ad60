"""Which linears of a base get LoRA: what `MTPConfig.lora_targets` means there."""

from collections.abc import Iterable, Sequence

from foresay.foundation.errors import ConfigError

ATTENTION = {"self_attn", "attn", "attention", "self_attention"}
"""What a layer calls its attention."""
OUTPUT = {"o_proj", "out_proj", "c_proj", "dense", "wo", "down_proj", "fc2", "dense_4h_to_h", "w2"}
"""What attention and MLP call the linear that writes to the residual stream."""


def targeted(linears: Iterable[str], targets: Iterable[str]) -> list[str]:
    """Those of `linears` (whole names) that one of `targets` means, in their order.

    A target is `auto` (those of each layer's MLP, or all of a layer whose experts are no linears), `all`, `attention`,
    `mlp`, `output`, or a name: a whole one or its last parts, as in PEFT. Raises ConfigError for one that means none.
    """
    names, chosen = list(linears), set[str]()
    for target in targets:
        found = _usual(names) if target == "auto" else [name for name in names if _means(target, name)]
        if not found:
            ends = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise ConfigError(
                f"lora_targets has {target!r}, and the base has no such linear; give auto, all, attention, mlp, output "
                f"or some of {', '.join(ends)}"
            )
        chosen.update(found)
    return [name for name in names if name in chosen]


def _usual(names: Sequence[str]) -> list[str]:
    """Of each layer its MLP's, or all."""
    layers: dict[str, list[str]] = {}
    for name in names:
        index = next((part for part in name.split(".") if part.isdigit()), "")
        layers.setdefault(index, []).append(name)
    return [name for some in layers.values() for name in [one for one in some if _means("mlp", one)] or some]


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
