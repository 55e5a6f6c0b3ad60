"""foresay inside vLLM: masks ride behind each request's drafts, vLLM's own multi-LoRA is the gate.

The only place that imports vLLM. Of its files only `rows` runs without it.
"""

from foresay.vllm_plugin.versions import found, may_run


def register() -> None:
    """Entry point of vLLM's general plugins, called in every process of vLLM, whatever it serves.

    It changes how drafts are counted, and only where our proposer drafts; a vLLM that was not tested is left alone.
    """
    if may_run(found()):
        from foresay.vllm_plugin.counting import count_masks_apart  # noqa: PLC0415 - imports vLLM

        count_masks_apart()
