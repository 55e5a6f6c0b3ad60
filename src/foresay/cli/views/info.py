"""What a model or a base is, on one screen."""

from dataclasses import dataclass
from shlex import quote
from typing import Any


@dataclass(frozen=True, slots=True)
class Info:
    """Facts of a multi-token model."""

    folder: str
    base: str
    base_adapter: str
    """The user's LoRA on the base; empty: none."""
    quantization: str
    """How the base is quantised; empty: not at all."""
    base_kind: str
    base_parameters: int
    layers: int
    """Decoder layers of the base."""
    context: int
    dtype: str
    """What the base is loaded in."""
    device: str
    adapter_parameters: int
    adapted_linears: int
    left_alone: tuple[str, ...]
    """Routers and experts without LoRA."""
    settings: dict[str, Any]
    fingerprints: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AdapterSize:
    """What an adapter would weigh, with other settings at their defaults."""

    rank: int
    parameters: int
    megabytes: float
    """Of a saved one in bfloat16, 10^6 bytes each."""


@dataclass(frozen=True, slots=True)
class BaseInfo:
    """Facts of a base that has no adapter yet."""

    base: str
    base_adapter: str
    """The user's LoRA on the base; empty: none."""
    quantization: str
    """How the checkpoint is quantised; empty: not at all."""
    family: str
    """transformers' `model_type`."""
    base_kind: str
    base_parameters: int
    layers: int
    context: int
    vocabulary: int
    dtype: str
    """Dtype of the checkpoint."""
    adapted_linears: int
    left_alone: tuple[str, ...]
    """Routers and experts that get no LoRA."""
    adapters: tuple[AdapterSize, ...]


def model_facts(info: Info) -> dict[str, str]:
    """A multi-token model in a few words a line."""
    made, settings = info.provenance, info.provenance.get("settings") or {}
    prints = ", ".join(f"{name} {value}" for name, value in info.fingerprints.items() if value)
    return _said({
        "model": info.folder,
        "base": _base(info),
        "its LoRA": info.base_adapter,
        "loaded": f"{info.dtype} on {info.device}",
        "adds": f"{_family(info)}; {_parameters(info.adapter_parameters, info.base_parameters)}",
        "no LoRA on": _left_alone(info.left_alone),
        "trained": _training(settings),
        "made": f"{made.get('made', 'unknown when')[:10]}, commit {(made.get('commit') or 'unknown')[:12]}",
        "tokens/step": _rates(made.get("tokens_per_step") or (settings.get("measured") or {}).get("tokens_per_step")),
        "drafts kept": _kept(settings.get("measured")),
        "fingerprints": prints,
        "everything": f"foresay info {quote(info.folder)} --json",
    })  # fmt: skip


def base_facts(info: BaseInfo) -> dict[str, str]:
    """A base in a few words a line, and what an adapter would need."""
    sizes = ", ".join(f"rank {size.rank}: {_megabytes(size)}" for size in info.adapters)
    return _said({
        "base": f"{_base(info)}, vocabulary {info.vocabulary:,}",
        "its LoRA": info.base_adapter,
        "checkpoint": f"{info.dtype}{f', {info.quantization}' if info.quantization else ''}",
        "adapter": f"none yet; it would act on {info.adapted_linears} linears and weigh {sizes}",
        "no LoRA on": _left_alone(info.left_alone),
        "would it pay": f"foresay advise {quote(info.base)}",
        "make one": f"foresay train {quote(info.base)} --data YOUR-DATA --out MY-ADAPTER",
    })  # fmt: skip


def _said(facts: dict[str, str]) -> dict[str, str]:
    return {name: fact for name, fact in facts.items() if fact}


def _base(info: Info | BaseInfo) -> str:
    quantized = f", {info.quantization}" if isinstance(info, Info) and info.quantization else ""
    return (
        f"{info.base}: {info.base_kind}{quantized}, {info.base_parameters:,} parameters, {info.layers} layers, context "
        f"{info.context:,} tokens"
    )


def _family(info: Info) -> str:
    settings = info.settings
    if "num_masks" not in settings:
        return f"{settings['heads']} heads ({settings['variant']})"
    return (
        f"{settings['num_masks']} masks, LoRA of rank {settings['rank']} on {info.adapted_linears} linears, sampler "
        f"head {settings['sampler']}"
    )


def _parameters(own: int, base: int) -> str:
    return f"{own:,} parameters, {own / base:.1%} of the base's"


def _left_alone(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return f"{len(names)} routers and experts ({names[0]}{' ...' if len(names) > 1 else ''})"


def _training(settings: dict[str, Any]) -> str:
    if "steps" not in settings:
        return ""
    data = ", ".join(source["name"] for source in settings.get("data") or ())
    return f"{settings['steps']:,} steps in {settings.get('seconds', 0):,.0f} s{f' on {data}' if data else ''}"


def _rates(rates: dict[str, float] | None) -> str:
    return ", ".join(f"{domain} {rate:.2f}" for domain, rate in (rates or {}).items())


def _kept(measured: dict[str, Any] | None) -> str:
    shares = [entry["unconditional"] for entry in (measured or {}).get("acceptance", ())]
    return ", ".join(f"{share:.0%}" for share in shares) + (" (the 1st, 2nd, ... draft)" if shares else "")


def _megabytes(size: AdapterSize) -> str:
    return f"{size.megabytes:,.1f} MB"
