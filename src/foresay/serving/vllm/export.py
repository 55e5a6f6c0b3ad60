"""A base and its adapter in the forms that vLLM reads."""

import copy
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foresay.foundation.errors import UnsupportedBase
from foresay.foundation.files import replacing
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.base.model import Base
from foresay.models.base.user_lora import adapter_weights
from foresay.serving.config import PluginConfig
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm.manifest import Manifest

ENGINE = "vLLM"


def export_vllm(model: MultiTokenModel, adapter: Path, out: Path, config: PluginConfig, overwrite: bool) -> Manifest:
    """Write a served copy of the base to `out`, in the dtype it is open in: with a vocabulary row for each mask.

    The adapter's folder `adapter` goes into it as it is. Rows are always added, never taken from spare ones, so that
    what vLLM must rule out is no token of the base. Raises ArtefactError, ConfigError, UnsupportedBase; then nothing
    is written.
    """
    base = model.base
    _refuse_unserved(base)
    served.lora_rank(model.mask_model.config.rank)
    said = _served(model, adapter, base.vocabulary, config)
    served.plugin_config(said, {})
    with replacing(out, overwrite) as fresh:
        _write_base(fresh, base, model.mask_model.adapter.mask_embeddings.detach())
        _write_beside(fresh, model, adapter, said)
    return said


def export_vllm_draft_model(model: MultiTokenModel, adapter: Path, out: Path, masks: int, overwrite: bool) -> Manifest:
    """Write to `out` a folder that vLLM takes twice: as the base, and with the adapter as its parallel draft model.

    `masks`: most masks after a token, 0 for the trained k. Raises ArtefactError, ConfigError, UnsupportedBase; then
    nothing is written.
    """
    base = model.base
    _refuse_unserved(base)
    architecture = type(base.model).__name__
    if architecture not in served.DRAFTED:
        raise UnsupportedBase(
            f"{architecture} was not tried as a draft model ({', '.join(served.DRAFTED)} were); export it --to vllm"
        )
    said = replace(_served(model, adapter, _seldom_said(model), PluginConfig(masks=masks)), draft_for=architecture)
    served.plugin_config(said, {})
    config = copy.deepcopy(base.model.config)
    config.architectures, config.mask_token_id = [served.DRAFT_PREFIX + architecture], said.first_mask
    # By its config vLLM tells whether what it compiled before fits.
    config.foresay = {"rank": said.rank, "linears": list(said.linears)}
    with replacing(out, overwrite) as fresh:
        base.model.save_pretrained(fresh)
        config.save_pretrained(fresh)
        _write_beside(fresh, model, adapter, said)
    return said


def _seldom_said(model: MultiTokenModel) -> int:
    """The id that vLLM writes at every mask of a draft model: of no token, else of one that hardly stands in a text.

    Where it does stand in one, drafts after it are worse, and nothing else.
    """
    last, tokenizer = model.base.vocabulary - 1, model.tokenizer
    if tokenizer is None or len(tokenizer) <= last:
        return last
    ends = {*model.base.stop_tokens, tokenizer.eos_token_id, tokenizer.bos_token_id, None}
    spare = (one for one in (tokenizer.unk_token_id, tokenizer.pad_token_id) if one not in ends)
    return next(spare, last)


def _served(model: MultiTokenModel, adapter: Path, first_mask: int, config: PluginConfig) -> Manifest:
    mtp = model.mask_model.config
    return Manifest(
        base=model.base_name,
        fingerprints=asdict(artefact.read_settings(adapter).fingerprints),
        first_mask=first_mask,
        num_masks=mtp.num_masks,
        rank=mtp.rank,
        linears=tuple(sorted({pair.name.rsplit(".", 1)[-1] for pair in model.mask_model.adapter.pairs})),
        plugin=config,
        provenance=provenance(dtype=str(model.base.dtype), plugin=asdict(config)),
    )


def _write_beside(folder: Path, model: MultiTokenModel, adapter: Path, said: Manifest) -> None:
    """What lies beside the base's weights: tokenizer, adapter and what the folder says of itself."""
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)
    shutil.copytree(adapter, folder / served.ADAPTER)
    served.write(folder, said)


def _write_base(folder: Path, base: Base, masks: Tensor) -> None:
    """The checkpoint with the masks' rows after the vocabulary; the model in memory stays as it is."""
    model = base.model
    weights = model.state_dict(keep_vars=True)
    rows = _embedding_rows(base, masks)
    embedding, head = base.embedding.weight, base.head
    nothing = rows.new_zeros(len(rows), head.weight.shape[1])
    # Keyed by identity: where the head is tied to the embedding, both names keep one tensor.
    longer = {id(head.weight): torch.cat((head.weight.data, nothing))}
    longer[id(embedding)] = torch.cat((embedding.data, rows))
    if head.bias is not None:
        longer[id(head.bias)] = torch.cat((head.bias.data, rows.new_zeros(len(rows))))
    state = {name: longer.get(id(tensor), tensor.data) for name, tensor in weights.items()}
    model.save_pretrained(folder, state_dict=state)
    config = copy.deepcopy(model.config)
    config.vocab_size += len(masks)
    config.save_pretrained(folder)


def _embedding_rows(base: Base, masks: Tensor) -> Tensor:
    """Rows (K, E) of the embedding's weight that the embedding turns into `masks`: Gemma scales what it looks up."""
    weight = base.embedding.weight.data
    scale = getattr(base.embedding, "embed_scale", None)
    rows = masks.float() if scale is None else masks.float() / float(scale)
    return rows.to(weight)


def _refuse_unserved(base: Base) -> None:
    """Raise UnsupportedBase, with the reason, for what vLLM's LoRA or a longer vocabulary cannot take."""
    model, embedding, config = base.model, base.embedding, base.model.config.get_text_config()
    adapted, sizes = base.linears().adapted, (embedding.weight.shape[0], base.vocabulary, config.vocab_size)
    reasons = {
        "is quantised, and only whole weights were exported so far": _is_quantised(model),
        "carries a user's own LoRA, which a served copy cannot hold": bool(adapter_weights(model)),
        "keeps its linears transposed (Conv1D), which vLLM's LoRA does not take": any(
            isinstance(linear, Conv1D) for linear in adapted.values()
        ),
        "embeds {} tokens, unembeds {} and says {}, where vLLM takes one size".format(*sizes): len(set(sizes)) > 1,
        "keeps its text model inside another, which was not tried": config is not model.config,
        "looks tokens up in a way that is not known": type(embedding) is not nn.Embedding
        and not hasattr(embedding, "embed_scale"),
    }
    for reason, found in reasons.items():
        if found:
            raise UnsupportedBase(f"{type(model).__name__} {reason}; serve it with foresay's own engine: foresay serve")


def _is_quantised(model: PreTrainedModel) -> bool:
    return getattr(model.config, "quantization_config", None) is not None
