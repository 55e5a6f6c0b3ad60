"""Our draft models in vLLM's registry of architectures."""

from vllm import ModelRegistry

from foresay.served import DRAFT_PREFIX, DRAFTED


def register_draft_models() -> None:
    """Name them, without importing them; in untested versions too, so that the refusal is ours and in words."""
    for architecture in DRAFTED:
        name = DRAFT_PREFIX + architecture
        ModelRegistry.register_model(name, f"foresay.vllm_plugin.draft_model:{name}")
