"""What every process of vLLM is told at its start: our draft models, and how masks are counted."""

from vllm import ModelRegistry
from vllm.logger import init_logger

from foresay.serving.vllm.manifest import DRAFT_PREFIX, DRAFTED

logger = init_logger(__name__)


def register_draft_models() -> None:
    """Name them, without importing them; in untested versions too, so that the refusal is ours and in words."""
    for architecture in DRAFTED:
        name = DRAFT_PREFIX + architecture
        ModelRegistry.register_model(name, f"foresay.serving.vllm.plugin.draft_model:{name}")


def try_to_count() -> None:
    """Count masks apart (`draft_counting`); a vLLM whose scheduler has other names runs all the same."""
    try:
        from foresay.serving.vllm.plugin.draft_counting import count_masks_apart  # noqa: PLC0415 - private names of vLLM

        count_masks_apart()
    except (ImportError, AttributeError) as error:
        logger.warning("foresay: masks will be counted as drafts, for vLLM's scheduler has changed (%s)", error)
