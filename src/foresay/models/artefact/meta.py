"""The verb `convert`: Meta's published files of a model with several heads, into ours and back.

Their folder (paper B's released checkpoints): `params.json`, and one `consolidated.pth` (or `consolidated.00.pth`) with
the names of the original Llama: trunk and head 1 are numbered through in `layers`, heads 2..n are `extra_heads`, all
share `norm` and `output`. Rotary pairs lie side by side there, half a head apart in Hugging Face's layout.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerBase

from foresay.foundation.errors import ArtefactError, ConfigError, in_words
from foresay.foundation.files import check_writable, replacing, write_json
from foresay.foundation.provenance import provenance
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import fingerprint
from foresay.models.base.load import load_tokenizer
from foresay.models.config import HeadsConfig
from foresay.models.families import family_of
from foresay.models.heads.model import HeadsModel
from foresay.models.loaded import LoadedModel

PARAMS, WEIGHTS = "params.json", ("consolidated.pth", "consolidated.00.pth")
SHARDS = "consolidated.*.pth"
KNOWN = {
    *("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta", "n_future_tokens"),
    *("multiple_of", "ffn_dim_multiplier", "max_batch_size", "max_seq_len"),
}
"""What `params.json` may say; the second row is read off the weights, or says nothing of the model."""
LAYER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Parts of a layer: Hugging Face's name, theirs."""
WHOLE = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
ROTARY = ("self_attn.q_proj", "self_attn.k_proj")
TORN = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError, UnpicklingError, ArithmeticError)
"""What torch, or our own reading of it, says of a torn file."""
UNUSED = "rope.freqs"
"""Some checkpoints carry a table that follows from the settings."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What both sides say of a model, beside its weights."""

    layers: int
    """Trunk, and all heads."""
    heads: int
    """Output heads, n."""
    attention_heads: int
    key_value_heads: int
    norm_eps: float
    rope_theta: float


def from_meta(folder: Path, tokenizer_name: str, out: Path, context: int, overwrite: bool) -> HeadsConfig:
    """Read Meta's files in `folder` and write them to `out` as a foresay model, in the dtype they have.

    Raises ArtefactError for files that are torn or do not fit together, ConfigError for a tokenizer of another
    vocabulary, BaseNotFound; then nothing is written.
    """
    check_writable(out, overwrite)
    params, weights = _read_params(folder / PARAMS), _read_weights(folder)
    shape = _shape(params, weights, folder)
    tokenizer = load_tokenizer(tokenizer_name)
    _check_tokenizer(tokenizer, tokenizer_name, weights, folder)
    with _damaged(folder):
        model = _model(shape, weights, tokenizer, context)
    settings = artefact.Settings(
        mtp=model.config,
        base=artefact.HERE,
        fingerprints=fingerprint(model.model, tokenizer),
        provenance=provenance(converted_from=folder.name, params=params),
        family=family_of(model.config),
    )
    with replacing(out, overwrite) as fresh:
        artefact.write_with_base(fresh, model, tokenizer, settings, model.base.dtype)
    return model.config


def to_meta(model: LoadedModel, out: Path, overwrite: bool) -> None:
    """Write `model`, a Llama with parallel heads, to `out` as Meta's files. Raises ConfigError, ArtefactError."""
    core = model.heads_model if model.family == "heads" else None
    config = model.base.model.config
    if core is None or core.config.variant != "parallel" or core.config.replicated:
        raise ConfigError(
            "Meta's files hold a model with parallel heads that share one unembedding, and this is another; "
            "convert such a one"
        )
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        raise ConfigError(f"Meta's files hold a Llama without biases, and this base is {config.model_type}")
    rope, size = config.rope_parameters, config.hidden_size // config.num_attention_heads
    if rope["rope_type"] != "default" or config.head_dim != size or config.hidden_act != "silu":
        raise ConfigError(
            f"Meta's files know silu, plain rotary positions and (here) attention heads of width {size}, and this base "
            f"has {config.hidden_act}, {rope['rope_type']} ones and {config.head_dim}"
        )
    shape = Shape(
        config.num_hidden_layers + core.config.drafts,
        core.config.heads,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.rms_norm_eps,
        rope["rope_theta"],
    )
    named = _named(core)
    weights = {theirs: _turned(named[ours], ours, shape, _side_by_side) for theirs, ours in _names(shape)}
    params = {
        "dim": config.hidden_size,
        "n_layers": shape.layers,
        "n_heads": shape.attention_heads,
        "n_kv_heads": shape.key_value_heads,
        "vocab_size": config.vocab_size,
        "norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "n_future_tokens": shape.heads,
    }
    with replacing(out, overwrite) as fresh:
        write_json(fresh / PARAMS, params)
        with (fresh / WEIGHTS[0]).open("wb") as file:  # so that a full disk is an OSError
            torch.save(weights, file)


def _read_params(path: Path) -> dict[str, Any]:
    with in_words(ArtefactError, f"{path} cannot be read", "give a folder as Meta publishes them", ValueError):
        params = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(params, dict):
        raise ArtefactError(f"{path} is no JSON object; restore the folder")
    unknown = sorted(params.keys() - KNOWN)
    if unknown:
        raise ArtefactError(f"{path} says {', '.join(unknown)}, which foresay does not know how to convert")
    return params


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors only: nothing in the file is run."""
    parts = sorted({path.name for name in (WEIGHTS[0], SHARDS) for path in folder.glob(name)})
    if len(parts) != 1 or parts[0] not in WEIGHTS:
        found = ", ".join(parts) or "none"
        raise ArtefactError(
            f"{folder} must hold one file {' or '.join(WEIGHTS)}, and has {found}; join the parts first"
        )
    with _damaged(folder / parts[0]):
        weights = torch.load(folder / parts[0], map_location="cpu", weights_only=True, mmap=True)
        weights.pop(UNUSED, None)
        kinds = {tensor.dtype for tensor in weights.values()}
        if len(kinds) != 1:
            raise ValueError(f"dtypes {', '.join(sorted(map(str, kinds))) or 'none'} where one was expected")
    return dict(weights)


def _shape(params: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> Shape:
    """From the settings, as far as the names of the weights bear them out."""
    extra = len({name.split(".")[1] for name in weights if name.startswith("extra_heads.")})
    with _damaged(folder / PARAMS):
        shape = Shape(
            layers=int(params["n_layers"]),
            heads=int(params.get("n_future_tokens", extra + 1)),
            attention_heads=int(params["n_heads"]),
            key_value_heads=int(params.get("n_kv_heads") or params["n_heads"]),
            norm_eps=float(params.get("norm_eps", 1e-5)),
            rope_theta=float(params.get("rope_theta", 10000.0)),
        )
        _check_sizes(params, weights)
    wanted = {theirs for theirs, _ in _names(shape)}
    odd = sorted(wanted ^ weights.keys())
    if odd:
        what = "lacks" if odd[0] in wanted else "holds beside them"
        raise ArtefactError(
            f"{folder} says {shape.layers} layers of which {shape.heads} are heads, and {what} {odd[0]}"
            f"{f' and {len(odd) - 1} more' if len(odd) > 1 else ''}; the checkpoint is torn or of another layout"
        )
    return shape


def _check_sizes(params: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raise ValueError where the settings speak of other weights than there are."""
    rows, width = weights["tok_embeddings.weight"].shape
    # Meta writes -1 where the tokenizer is to say.
    for name, said, found in (
        ("dim", params.get("dim", width), width),
        ("vocab_size", params.get("vocab_size", -1), rows),
    ):
        if said not in (-1, found):
            raise ValueError(f"{name} is {said} and the weights have {found}")
    if width % int(params["n_heads"]) or int(params["n_heads"]) < 1:
        raise ValueError(f"n_heads is {params['n_heads']}, which does not divide the width {width}")


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, weights: dict[str, Tensor], folder: Path) -> None:
    rows = len(weights[f"{WHOLE['model.embed_tokens']}.weight"])
    if len(tokenizer) != rows:
        raise ConfigError(
            f"tokenizer {name} has {len(tokenizer)} tokens, and {folder} has weights for {rows}; "
            "give the tokenizer that it was trained with"
        )


def _model(shape: Shape, weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, context: int) -> HeadsModel:
    """An ordinary Llama of trunk and head 1 in the dtype of the weights, with the other heads beside it."""
    rows, width = weights["tok_embeddings.weight"].shape
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=len(weights["layers.0.feed_forward.w1.weight"]),
        num_hidden_layers=shape.layers - shape.heads + 1,
        num_attention_heads=shape.attention_heads,
        num_key_value_heads=shape.key_value_heads,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    base = AutoModelForCausalLM.from_config(config, dtype=weights["tok_embeddings.weight"].dtype)
    model = HeadsModel.from_base(base, HeadsConfig(heads=shape.heads))
    named = _named(model)
    for theirs, ours in _names(shape):
        given = _turned(weights[theirs], ours, shape, _half_apart)
        if given.shape != named[ours].shape:
            raise ValueError(f"{theirs} has shape {tuple(given.shape)}, and {tuple(named[ours].shape)} was expected")
        with torch.no_grad():
            named[ours].copy_(given)
    return model


def _named(model: HeadsModel) -> dict[str, Tensor]:
    """Every weight by its name: the base's own, and `heads.` for those beside it."""
    beside = {f"heads.{name}": tensor for name, tensor in model.heads.named_parameters()}
    return dict(model.model.named_parameters(remove_duplicate=False)) | beside


def _names(shape: Shape) -> Iterator[tuple[str, str]]:
    """(their name, ours) of every weight."""
    for ours, theirs in WHOLE.items():
        yield f"{theirs}.weight", f"{ours}.weight"
    own = shape.layers - shape.heads + 1
    places = [(f"layers.{place}", f"model.layers.{place}") for place in range(own)]
    places += [(f"extra_heads.{place}", f"heads.layers.{place}") for place in range(shape.heads - 1)]
    for theirs, ours in places:
        for part, named in LAYER.items():
            yield f"{theirs}.{named}.weight", f"{ours}.{part}.weight"


def _turned(weight: Tensor, ours: str, shape: Shape, turn: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Queries and keys with their rotary pairs turned; everything else as it is."""
    part = ours.removesuffix(".weight")
    if not part.endswith(ROTARY):
        return weight.detach()
    return turn(weight.detach(), shape.attention_heads if part.endswith(ROTARY[0]) else shape.key_value_heads)


def _half_apart(weight: Tensor, heads: int) -> Tensor:
    """Rotary pairs from side by side to half a head apart: (heads x size, D)."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def _side_by_side(weight: Tensor, heads: int) -> Tensor:
    """The way back."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)


def _damaged(path: Path) -> AbstractContextManager[None]:
    """What cannot be read is a damaged checkpoint, in one sentence."""
    return in_words(ArtefactError, f"{path} is torn or of another layout", "restore it", *TORN)
