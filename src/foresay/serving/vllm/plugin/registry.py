"""What every process of vLLM is told at its start: our draft models, and what its scheduler does with masks."""

from collections.abc import Callable

from vllm import ModelRegistry
from vllm.logger import init_logger

from foresay.serving.vllm.manifest import DRAFT_PREFIX, DRAFTED

logger = init_logger(__name__)


def register_draft_models() -> None:
    """Name them, without importing them; in untested versions too, so that the refusal is ours and in words."""
    for architecture in DRAFTED:
        name = DRAFT_PREFIX + architecture
        ModelRegistry.register_model(name, f"foresay.serving.vllm.plugin.draft_model:{name}")


def try_to_change_scheduler() -> None:
    """Count masks apart, let them past grammars, and draft what must come.

    A vLLM whose scheduler has other names runs all the same.
    """
    _try(_count, "masks will be counted as drafts")
    _try(_change_under_grammars, "requests under a grammar will be served with fewer drafts, or none")


def _try(change: Callable[[], None], otherwise: str) -> None:
    try:
        change()
    except (ImportError, AttributeError) as error:
        logger.warning("foresay: %s, for vLLM's scheduler has changed (%s)", otherwise, error)


def _count() -> None:
    from foresay.serving.vllm.plugin.draft_counting import count_masks_apart  # noqa: PLC0415 - private names of vLLM

    count_masks_apart()


def _change_under_grammars() -> None:
    from foresay.serving.vllm.plugin import grammar_masks  # noqa: PLC0415 - private names of vLLM

    grammar_masks.change_drafts_under_grammars()
