"""Which bases foresay can drive, and why not the others."""

import inspect
from typing import Any

from transformers import PreTrainedModel

from foresay.foundation.errors import UnsupportedBase

FULL, SLIDING = "full_attention", "sliding_attention"


def windows_of(config: Any) -> dict[str, int | None]:
    """Reach of each attention layer type, in positions; None sees everything."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:
        kinds = {FULL if window is None else SLIDING}
    return {kind: None if kind == FULL else window for kind in sorted(kinds)}


def kind_of(model: PreTrainedModel) -> str:
    """Its class, for messages."""
    return type(model).__name__


def refuse_unsupported(model: PreTrainedModel) -> None:
    """Raise UnsupportedBase, with the reason, for what explicit rows cannot drive."""
    config, cure = model.config.get_text_config(), "give a decoder-only attention model"
    layer_types = set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING}
    attention = config._attn_implementation
    reasons = {
        "is an encoder-decoder": model.config.is_encoder_decoder,
        "keeps a recurrent state, which drafts cannot be taken out of again": model._is_stateful,
        f"has layers of type {', '.join(sorted(layer_types))}": bool(layer_types),
        "has windows that count slots, not positions": "local" in (getattr(config, "attention_layers", None) or ()),
        "shares K/V between layers": bool(getattr(config, "num_kv_shared_layers", 0)),
        "has per-layer embeddings": bool(getattr(config, "hidden_size_per_layer_input", 0)),
        "has no head over its vocabulary": model.get_output_embeddings() is None,
        "takes no explicit positions (ALiBi or none)": not _takes_positions(model),
        "states no max_position_embeddings": getattr(config, "max_position_embeddings", None) is None,
    }
    for reason, found in reasons.items():
        if found:
            raise UnsupportedBase(f"{kind_of(model)} {reason}, which foresay cannot drive; {cure}")
    devices = sorted({str(device) for device in (getattr(model, "hf_device_map", None) or {}).values()})
    if len(devices) > 1 or devices == ["disk"]:
        raise UnsupportedBase(
            f"{kind_of(model)} is spread over {', '.join(devices)}, and its rows, slots and adapter must lie together; "
            "load it on one device"
        )
    if attention not in ("sdpa", "eager"):
        raise UnsupportedBase(
            f"{kind_of(model)} was loaded with attention {attention!r}, which takes no explicit mask; load it with "
            "attn_implementation='sdpa' or 'eager'"
        )


def _takes_positions(model: PreTrainedModel) -> bool:
    alibi = getattr(model.config.get_text_config(), "alibi", False)
    return not alibi and "position_ids" in inspect.signature(model.forward).parameters
