"""How much memory the K/V of decoding takes."""

from dataclasses import replace

from foresay.decoding.config import DecodeConfig
from foresay.decoding.session import Session
from foresay.models.drafting import DraftingModel


def kv_bytes(model: DraftingModel, config: DecodeConfig, sequences: int, tokens: int) -> int:
    """Bytes that an engine allocates, by what a prompt of one token took: no setting tells the shapes of every base."""
    layout = "quadratic" if config.layout == "planned" else config.layout
    session = Session(model, [(0,)], replace(config, layout=layout, max_new_tokens=1, graphs=False))
    session.step()
    layers = [layer for layer in session.cache.layers if layer.is_initialized]
    held: int = sum(stored.nbytes for layer in layers for stored in (layer.keys, layer.values))
    return held // session.cache.slots * (tokens + session.spare) * sequences
