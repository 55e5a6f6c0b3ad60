"""The drafter that vLLM loads by name (`method: custom_class`): reads the masks of a step, proposes for the next one.

Drafts are the sampler head's best tokens, never drawn by chance, and so is their number: both are functions of the text
so far. vLLM takes such drafts as certain: it keeps one with the base's own chance of it and else draws from the base's
other tokens, which is exact, sampled or greedy (design as in `decoding/sampling/verify.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform

from foresay.models.artefact.tensors import lora_folder
from foresay.serving.config import PluginConfig
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm.manifest import ADAPTER, PLUGIN, Manifest
from foresay.serving.vllm.plugin.checks import check_engine, check_target
from foresay.serving.vllm.plugin.cpu_fixes import mend_cpu
from foresay.serving.vllm.plugin.lora_gate import open_gate
from foresay.serving.vllm.plugin.sampler_chain import Chain
from foresay.serving.vllm.plugin.step_rows import StepRows, best_length

LORA_ID = 2**30
"""Id of the adapter among vLLM's, which count from 1."""
logger = init_logger(__name__)


class MaskProposer:
    """Drafts for all running requests, one forward of the base a step: single pass, linear masks."""

    def __init__(self, vllm_config: VllmConfig) -> None:
        folder = Path(vllm_config.model_config.model)
        self.served: Manifest = served.read(folder)
        changes = (vllm_config.additional_config or {}).get(PLUGIN, {})
        self.config: PluginConfig = served.plugin_config(self.served, changes)
        check_engine(vllm_config, self.served, self.config)
        if current_platform.is_cpu():
            mend_cpu()
        open_gate()
        self.adapter = folder / ADAPTER
        self.lora = LoRARequest("foresay", LORA_ID, str(lora_folder(self.adapter)))
        first = self.served.first_mask
        self.masks = list(range(first, first + self.config.masks))
        self.step: StepRows | None = None
        self.states: Tensor | None = None
        self.shortlists: Tensor | None = None
        logger.info("foresay: %d masks a request, drafts before them: %s", self.config.masks, self.config.lengths)

    def load_model(self, target: nn.Module) -> None:
        """Take the served base: no mask may ever be said, and what its head sees is where drafts come from."""
        self.chain = Chain(target, self.adapter, self.served)
        check_target(target, self.chain)
        logits_of = self.chain.logits_of

        def compute_logits(states: Tensor, *rest: Any) -> Tensor | None:
            logits: Tensor | None = logits_of(states, *rest)
            if self.step is not None and self.states is None and len(states) == sum(self.step.judged):
                self.states, self.shortlists = states, self._shortlists(self.step, logits)
            return logits

        target.compute_logits = compute_logits  # type: ignore[assignment]

    def begin(self, batch: Any, scheduled: Sequence[int], judged: Sequence[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """A step begins on vLLM's `InputBatch`: (rows,) True where a mask stands.

        Only drafts are looked at: a prompt that holds a mask's id is a prompt.
        """
        masks = []
        for request, (rows, ends) in enumerate(zip(scheduled, judged)):
            end = int(batch.num_computed_tokens_cpu[request]) + int(rows)
            drafts = batch.token_ids_cpu[request, end - int(ends) + 1 : end]
            masks.append(int((drafts >= self.served.first_mask).sum()))
        self.step = StepRows(tuple(map(int, scheduled)), tuple(map(int, judged)), tuple(masks))
        self.states = self.shortlists = None
        return self.step.gate()

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """What vLLM schedules after each request's newest token in the next step: drafts, then masks.

        `sampled_token_ids`: the tokens that each request kept; none while its prompt is not through.
        """
        step, states, shortlists = self.step, self.states, self.shortlists
        self.step = self.states = self.shortlists = None
        running = sum(map(bool, sampled_token_ids))
        if 0 < self.config.busy_requests < running:
            return [[] for _ in sampled_token_ids]
        proposed = [list(self.masks) if kept else [] for kept in sampled_token_ids]
        if step is None or states is None:
            return proposed
        blocks = {request: step.block(request, len(kept)) for request, kept in enumerate(sampled_token_ids) if kept}
        known = {request: (rows, sampled_token_ids[request][-1]) for request, rows in blocks.items() if rows}
        for request, drafts in self._draft(known, states, shortlists):
            proposed[request] = drafts + proposed[request]
        return proposed

    def _shortlists(self, step: StepRows, logits: Tensor | None) -> Tensor | None:
        """(judged rows, C) int64: what drafts from each mask are taken from; None: all tokens. vLLM changes `logits`
        later on."""
        if logits is None or not self.chain.shortlist.size or not any(step.masks):
            return None
        is_mask = torch.from_numpy(step.judged_masks()).to(logits.device)
        lists = torch.zeros(len(logits), self.chain.shortlist.size, dtype=torch.int64, device=logits.device)
        lists[is_mask] = self.chain.shortlist.best(logits[is_mask])
        return lists

    def _draft(
        self, known: dict[int, tuple[range, int]], states: Tensor, shortlists: Tensor | None
    ) -> list[tuple[int, list[int]]]:
        """Drafts of the requests whose block stands after the newest token: its rows of `states`, and that token."""
        if not known:
            return []
        blocks = {request: block for request, (block, _) in known.items()}
        longest = max(map(len, blocks.values()))
        # Blocks that were cut (by the context, or a grammar) read their last row again; those drafts are dropped.
        rows = [[rows[min(place, len(rows) - 1)] for place in range(longest)] for rows in blocks.values()]
        newest = torch.tensor([token for _, token in known.values()], device=states.device)
        places = torch.tensor(rows, device=states.device)
        tokens, chances = self.chain.guess(states[places], newest, None if shortlists is None else shortlists[places])
        drafts = []
        for (request, block), guesses, likely in zip(blocks.items(), tokens, chances):
            most = len(block) if self.config.lengths == "all" else best_length(likely[: len(block)])
            drafts.append((request, guesses[:most]))
        return drafts
