"""The gate inside vLLM: its multi-LoRA takes an adapter for each row, and mask rows get ours."""

from functools import wraps
from typing import Any

import numpy as np
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

OPENED = "foresay_gate"


def open_gate() -> None:
    """Let the runner of this process ask our proposer which rows are masks; other drafters run as before."""
    if hasattr(GPUModelRunner, OPENED):
        return
    plain = GPUModelRunner.set_active_loras

    @wraps(plain)
    def set_active_loras(self: Any, batch: Any, scheduled: Any, judged: Any = None, *rest: Any, **more: Any) -> None:
        begin = getattr(getattr(self, "drafter", None), "begin", None)
        if begin is None or judged is None:  # another drafter, or a dummy run
            plain(self, batch, scheduled, judged, *rest, **more)
            return
        prompts, tokens, requests = batch.make_lora_inputs(scheduled, judged)
        masks = begin(batch, scheduled, judged)
        if masks.any():
            tokens = tuple(np.where(masks, self.drafter.lora.lora_int_id, tokens).tolist())
            requests = requests | {self.drafter.lora}
        self._set_active_loras(prompts, tokens, requests, *rest, **more)

    GPUModelRunner.set_active_loras = set_active_loras
    setattr(GPUModelRunner, OPENED, True)
