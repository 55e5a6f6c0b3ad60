"""What the plugin refuses, in words, before anything runs."""

import inspect
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.v1.worker.gpu_input_batch import InputBatch
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from foresay.foundation.errors import ArtefactError, require
from foresay.serving.config import PluginConfig
from foresay.serving.vllm.manifest import Manifest
from foresay.serving.vllm.plugin.sampler_chain import Chain
from foresay.serving.vllm.plugin.versions import check_version

USED = {
    GPUModelRunner: {
        "set_active_loras": ["self", "input_batch", "num_scheduled_tokens", "num_sampled_tokens", "mapping_type"],
        "_set_active_loras": ["self", "prompt_lora_mapping", "token_lora_mapping", "lora_requests", "mapping_type"],
    },
    InputBatch: {"make_lora_inputs": ["self", "num_scheduled_tokens", "num_sampled_tokens"]},
}
"""Private methods of vLLM's V1 runner that the gate stands on, and their parameters."""


def check_engine(config: VllmConfig, served: Manifest, plugin: PluginConfig) -> None:
    """Raise ConfigError where vLLM was started in a way that the plugin cannot work in."""
    check_version()
    require(
        not served.draft_for,
        "the folder holds a draft model, not masks beside a base; start vLLM as foresay export printed",
    )
    for owner, methods in USED.items():
        for name, parameters in methods.items():
            known = getattr(owner, name, None)
            found = list(inspect.signature(known).parameters) if known else []
            require(
                found == parameters or hasattr(owner, "foresay_gate"),
                f"vLLM's {owner.__name__}.{name} takes {found or 'nothing, for it is gone'}, not {parameters}; the "
                "plugin needs vLLM's V1 model runner as in the version it was tested with",
            )
    lora, parallel, speculative = config.lora_config, config.parallel_config, config.speculative_config
    require(lora is not None, "vLLM was started without LoRA, which the masks need; give --enable-lora")
    assert lora is not None
    require(
        lora.max_lora_rank >= served.rank,
        f"max_lora_rank is {lora.max_lora_rank} and the adapter has rank {served.rank}; give --max-lora-rank",
    )
    require(parallel.pipeline_parallel_size == 1, "pipeline parallel was never tried with the masks; leave it at 1")
    tokens = speculative.num_speculative_tokens if speculative is not None else 0
    require(
        tokens == 2 * plugin.masks,
        f"num_speculative_tokens is {tokens}; give {2 * plugin.masks}: {plugin.masks} drafts and as many masks",
    )


def check_target(target: nn.Module, chain: Chain) -> None:
    """Raise ConfigError or ArtefactError where the loaded model is not the served copy, or wrapped too far."""
    wrapped = [name for name in ("logits_processor", "lm_head") if _is_wrapped(getattr(target, name, None))]
    require(
        not wrapped,
        f"LoRA was attached to {' and '.join(wrapped)}; give --lora-target-modules as `foresay export` printed it",
    )
    first = chain.first
    rows = chain.embed(torch.arange(first, first + len(chain.masks), device=chain.device)).float().cpu()
    apart = ((rows - chain.masks.float()).norm() / chain.masks.float().norm()).item()
    if not apart < 0.01:
        raise ArtefactError(
            f"the masks' rows of the served copy differ from the adapter's masks (relative distance {apart:.1e}); "
            "export it again"
        )


def _is_wrapped(module: Any) -> bool:
    return hasattr(module, "base_layer")
