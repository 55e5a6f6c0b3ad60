"""The verb `compress`: the same adapter at a smaller rank, so that a step costs less."""

from collections.abc import Sequence
from dataclasses import replace

from foresay.data.prompts import Prompt
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.masks.model import MaskModel
from foresay.training.config import TrainConfig
from foresay.training.runs.validation import HeldOut


def compress(model: MultiTokenModel, rank: int, prompts: Sequence[Prompt]) -> MultiTokenModel:
    """A copy of `model` whose LoRA pairs are cut to `rank` by their singular values; masks and sampler stay.

    The acceptance saved with it is measured anew on `prompts`. Raises ConfigError for a rank that is not
    smaller, or is below 1.
    """
    wide = model.mask_model
    if not 1 <= rank < wide.config.rank:
        smaller = f"give 1 to {wide.config.rank - 1}" if wide.config.rank > 1 else "it cannot be cut further"
        raise ConfigError(f"rank {rank} was asked for and the adapter has {wide.config.rank}; {smaller}")
    alpha = wide.config.scale * rank if wide.config.alpha else 0.0
    core = MaskModel.from_base(wide.model, replace(wide.config, rank=rank, alpha=alpha))
    core.adapter.mask_embeddings.data.copy_(wide.adapter.mask_embeddings)
    core.adapter.sampler.load_state_dict(wide.adapter.sampler.state_dict())
    for narrow, pair in zip(core.adapter.pairs, wide.adapter.pairs):
        narrow.approximate(pair)
    made = model.provenance | {"compressed_from_rank": wide.config.rank}
    compressed = MultiTokenModel(core, model.tokenizer, model.base_name, made, model.base_adapter)
    wide.detach_hooks()
    as_trained = TrainConfig()
    found = HeldOut(tuple(prompts), as_trained.eval_tokens, as_trained.eval_batch).measure(compressed)
    compressed.provenance["tokens_per_step"] = {name: round(rate, 3) for name, rate in found.tokens_per_step.items()}
    return compressed
