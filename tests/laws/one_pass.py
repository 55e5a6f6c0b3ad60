"""The paper's training pass as plainly as it can be written: x0 m1..mk x1 m1..mk ... in one call (paper A, 3 and 4).

Slow on purpose and independent of the package: rows are listed one by one, sight is a rule for a pair of rows, LoRA is
applied by hooks of its own with a 0/1 number for each row, and the losses are averages over whole lists of rows.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from foresay.config import LossConfig
from foresay.modelling.model import MaskModel
from foresay.training.losses import Losses
from foresay.training.two_pass import Batch

HIDDEN = -1e9


@dataclass(frozen=True)
class PackedRow:
    """A row of the packed pass: the token at `anchor` (mask 0), or mask 1..k behind it."""

    anchor: int
    mask: int

    @property
    def position(self) -> int:
        return self.anchor + self.mask


@dataclass(frozen=True)
class Result:
    """Loss parts and the gradient of every tensor of the adapter, by name."""

    losses: Losses
    gradients: dict[str, Tensor]


def pack(length: int, anchors: list[int], masks: int) -> list[PackedRow]:
    """x0, its masks, x1, its masks, ...: interleaved as the paper draws it."""
    rows = []
    for token in range(length):
        rows.append(PackedRow(token, 0))
        if token in anchors:
            rows += [PackedRow(token, mask) for mask in range(1, masks + 1)]
    return rows


def sees(query: PackedRow, key: PackedRow, window: int | None) -> bool:
    """Whether one row attends to another."""
    if window is not None and query.position - key.position >= window:
        return False
    if key.mask == 0:
        return key.anchor <= query.anchor
    return key.anchor == query.anchor and key.mask <= query.mask


def bias(rows: list[PackedRow], window: int | None) -> Tensor:
    """(1, 1, T, T): 0 where a row is seen and a large negative number elsewhere."""
    return torch.tensor([[[[0.0 if sees(query, key, window) else HIDDEN for key in rows] for query in rows]]])


def mask_weight(mask: int, config: LossConfig) -> float:
    """Weight of mask 1, 2, ... in the losses of the heads; real rows have 1."""
    given = config.position_weights
    return given[mask - 1 if mask <= len(given) else -1] if given and mask else 1.0


def pays(logits: Tensor, target: Tensor, teacher: Tensor, config: LossConfig) -> Tensor:
    """What a head pays on one row, from probabilities: `logits` (V,), `teacher` (V,)."""
    p, q = (teacher / config.teacher_temperature).softmax(-1), logits.softmax(-1)
    loss = config.hard_weight * -q[target].log()
    loss = loss + config.kl_weight * (p * (p.log() - q.log())).sum()
    return loss + config.variation_weight * (p - q).clamp(min=0).sum()


class OnePass:
    """A plain copy of the base with the adapter's weights as leaves of its own."""

    def __init__(self, model: PreTrainedModel, mtp: MaskModel) -> None:
        self.model, self.config = model, mtp.config
        self.weights = {name: p.detach().clone().requires_grad_() for name, p in mtp.adapter.named_parameters()}
        self.acts: Tensor = torch.zeros(0)
        self.states: Tensor = torch.zeros(0)
        modules = dict(model.named_modules())
        self.handles = [
            modules[lora.name].register_forward_hook(self._low_rank(f"loras.{number}"))
            for number, lora in enumerate(mtp.adapter.loras)
        ]
        self.handles.append(model.get_output_embeddings().register_forward_pre_hook(self._read))

    def run(self, batch: Batch, lengths: Sequence[int], config: LossConfig) -> Result:
        """Losses and gradients of the whole batch, one unpadded sequence after the other, all in one graph."""
        parts: dict[str, list[Tensor]] = defaultdict(list)
        for ids, carries, anchors, length in zip(batch.ids, batch.carries, batch.anchors, lengths, strict=True):
            rows = pack(length, [a for a in anchors.tolist() if a >= 0], batch.masks or self.config.num_masks)
            self._sequence(ids[:length], carries.tolist(), rows, config, parts)
        weight = torch.stack(parts["weight"]).sum()
        means = [torch.stack(parts[name]).sum() / weight for name in ("base", "sampler")]
        means.append(torch.stack(parts["consistency"]).mean())
        weights = (config.base_weight, config.sampler_weight, config.consistency_weight)
        total = sum(weight * mean for weight, mean in zip(weights, means))
        assert isinstance(total, Tensor)
        total.backward()
        for handle in self.handles:
            handle.remove()
        gradients = {name: w.grad for name, w in self.weights.items() if w.grad is not None}
        return Result(Losses(*(mean.item() for mean in means), total.item()), gradients)

    def _sequence(
        self,
        ids: Tensor,
        carries: list[bool],
        rows: list[PackedRow],
        config: LossConfig,
        parts: dict[str, list[Tensor]],
    ) -> None:
        base, states = self._forward(ids, rows)
        # Only rows whose label exists and carries loss; the position of a row says which token that is.
        asked = [t for t, row in enumerate(rows) if row.position < len(ids) - 1 and carries[row.position]]
        previous = ids[torch.tensor([rows[t].position for t in asked])]
        sampler = dict(zip(asked, self._unembed(self._sampler(self._embed(previous), states[asked]))))
        own = {row.anchor: t for t, row in enumerate(rows) if row.mask == 0}
        agreeing: dict[int, list[Tensor]] = {rows[t].position: [] for t in asked if rows[t].mask == 0}
        for t in asked:
            position = rows[t].position
            label = ids[position + 1]
            target = label if config.target == "label" else base[own[position]].argmax()
            if rows[t].mask or config.real_rows:
                # The frozen base's own rows have nothing to learn: its cross-entropy is reported against the data.
                weight = mask_weight(rows[t].mask, config)
                teacher = base[own[position]].detach()
                own_loss = -base[t].log_softmax(-1)[label]
                parts["weight"].append(torch.tensor(weight))
                parts["base"].append(weight * pays(base[t], target, teacher, config) if rows[t].mask else own_loss)
                parts["sampler"].append(weight * pays(sampler[t], target, teacher, config))
            if rows[t].mask:
                squares = (states[own[position]].detach() - states[t]).square()
                agreeing[position].append(squares.mean() if config.consistency_over == "mean" else squares.sum())
        for distances in agreeing.values():
            parts["consistency"].append(torch.stack(distances).mean() if distances else torch.tensor(0.0))

    def _forward(self, ids: Tensor, rows: list[PackedRow]) -> tuple[Tensor, Tensor]:
        """Logits (T, V) and the states (T, D) that were unembedded."""
        tokens = self._embed(ids)
        embeds = torch.stack([self.weights["masks"][row.mask - 1] if row.mask else tokens[row.anchor] for row in rows])
        self.acts = torch.tensor([float(row.mask > 0) for row in rows])[:, None]
        output = self.model(
            inputs_embeds=embeds[None],
            attention_mask=self._attention_masks(rows),
            position_ids=torch.tensor([[row.position for row in rows]]),
            use_cache=False,
        )
        return output.logits[0], self.states[0]

    def _attention_masks(self, rows: list[PackedRow]) -> Any:
        config = self.model.config
        kinds = set(getattr(config, "layer_types", None) or ())
        if len(kinds) > 1:
            return {kind: bias(rows, config.sliding_window if kind.startswith("sliding") else None) for kind in kinds}
        return bias(rows, getattr(config, "sliding_window", None))

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def _unembed(self, states: Tensor) -> Tensor:
        """Logits of states that are not the base's; of the toys used here Gemma 2 caps them."""
        logits: Tensor = functional.linear(states, self.model.get_output_embeddings().weight)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _sampler(self, previous: Tensor, states: Tensor) -> Tensor:
        """The sampler head from its weights alone."""
        w = {name.removeprefix("sampler."): p for name, p in self.weights.items() if name.startswith("sampler.")}
        both = torch.cat((previous, states), dim=-1)
        if self.config.sampler == "paper":
            first = _norm(functional.silu(both @ w["first.weight"].T + w["first.bias"]), w, "first_norm")
            return _norm(functional.silu(first @ w["second.weight"].T + w["second.bias"]), w, "second_norm")
        inner = _norm(both @ w["inner.weight"].T + w["inner.bias"], w, "norm")
        return states + functional.silu(inner) @ w["out.weight"].T + w["out.bias"]

    def _low_rank(self, name: str) -> Any:
        """Hook: `W x + I * scale * up (down x)`, with I one number for each row."""

        def add(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            down, up = self.weights[f"{name}.down"], self.weights[f"{name}.up"]
            low_rank = args[0] @ down.T @ up.T * (self.config.lora_alpha / self.config.rank)
            return output + (self.acts * low_rank.view(len(self.acts), -1)).view_as(output)

        return add

    def _read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        # The head is called on the states of all rows only inside the base's own forward.
        self.states = args[0]


def _norm(states: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
