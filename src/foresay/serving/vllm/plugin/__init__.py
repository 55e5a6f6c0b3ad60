"""foresay inside vLLM: masks ride after each request's drafts, vLLM's own multi-LoRA is the gate.

`draft_model` is the fallback, two passes a step. The only place that imports vLLM. Of its files only `step_rows` and
`forced_drafts` run without it.
"""

from foresay.serving.vllm.plugin.versions import found, may_run


def register() -> None:
    """Entry point of vLLM's general plugins, called in every process of vLLM, whatever it serves.

    It names our draft models, and changes how drafts are counted and pass grammars, only where we draft; in a vLLM that
    was not tested nothing is changed.
    """
    if found() is None:
        return
    from foresay.serving.vllm.plugin.registry import register_draft_models  # noqa: PLC0415 - imports vLLM

    register_draft_models()
    if may_run(found()):
        from foresay.serving.vllm.plugin.registry import try_to_change_scheduler  # noqa: PLC0415 - imports vLLM

        try_to_change_scheduler()
