"""Every law turns red when the code is broken on purpose; a law that no mutant can break proves nothing.

A mutant replaces one small function; each law named beside it must raise AssertionError, and passes without it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from checks import (
    Ragged,
    always_right,
    check_adapter_cannot_reach_real_rows,
    check_base_is_unchanged,
    check_closed_gate_is_the_base,
    check_drafter_changes_nothing,
    check_greedy_is_plain,
    check_layouts_agree,
    check_mask_states_agree,
    check_real_rows_are_the_base,
    check_stale_slots_are_unseen,
    check_stale_slots_change_no_token,
    check_two_passes_are_one,
    sometimes_right,
    two_pass_result,
)
from one_pass import OnePass
from torch import Tensor
from toys import GEMMA3, GPT2, LLAMA, MISTRAL_WINDOW, PHI3_LONGROPE, QWEN3_MOE, SWITCH, Toy, adapted, random_prompts, with_adapter

from foresay.config import DecodeConfig, LossConfig
from foresay.decoding import generate as generate_module
from foresay.decoding.verify import Verdict, verify_greedy
from foresay.layout import Call, Layout, MaskCall
from foresay.modelling.base import Base
from foresay.modelling.cache import SlotCache
from foresay.modelling.gate import Gate
from foresay.modelling.lora import GatedLora
from foresay.modelling.model import MultiTokenModel
from foresay.training import two_pass as two_pass_module
from foresay.training.two_pass import Denominators

QUADRATIC = DecodeConfig(layout="quadratic", masks=3, max_new_tokens=32)
LINEAR = DecodeConfig(layout="linear", masks=3, max_new_tokens=32)
BATCH = Ragged.random()
Patch = Callable[[pytest.MonkeyPatch], None]


# Laws, each with a toy of its own.


def real_rows(toy: Toy) -> None:
    check_real_rows_are_the_base(adapted(toy), toy)


def out_of_reach(toy: Toy) -> None:
    check_adapter_cannot_reach_real_rows(adapted(toy), with_adapter(toy.model(), seed=2), toy)


def mask_states(toy: Toy) -> None:
    check_mask_states_agree(adapted(toy), toy)


def layouts_agree(toy: Toy) -> None:
    check_layouts_agree(adapted(toy), toy, masks=3)


def stale_slots(toy: Toy) -> None:
    check_stale_slots_are_unseen(adapted(toy), toy)


def stale_tokens(toy: Toy) -> None:
    check_stale_slots_change_no_token(adapted(toy), toy, "quadratic")


def greedy(toy: Toy) -> None:
    check_greedy_is_plain(adapted(toy), toy, QUADRATIC)


def greedy_half_right(toy: Toy) -> None:
    check_drafter_changes_nothing(adapted(toy), toy, QUADRATIC, sometimes_right)


def greedy_right(toy: Toy) -> None:
    check_drafter_changes_nothing(adapted(toy), toy, LINEAR, always_right)


def greedy_across_the_switch(toy: Toy) -> None:
    prompts = random_prompts((3, 5, SWITCH - 2, SWITCH, SWITCH + 4))
    check_greedy_is_plain(adapted(toy), toy, QUADRATIC, [prompts, *([prompt] for prompt in prompts)])


def greedy_with_stops(toy: Toy) -> None:
    mtp = adapted(toy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtp.model.generation_config, "eos_token_id", list(range(0, 96, 16)))
        check_greedy_is_plain(mtp, toy, QUADRATIC)


def two_passes(toy: Toy) -> None:
    trainee = with_adapter(toy.model(), masks=3)
    for real in (False, True):
        config = LossConfig(real_rows=real)
        plain = OnePass(toy.model().requires_grad_(False), trainee).run(BATCH.batch, BATCH.lengths, config)
        check_two_passes_are_one(two_pass_result(trainee, BATCH.batch, config, 7), plain)


def closed_gate(toy: Toy) -> None:
    check_closed_gate_is_the_base(adapted(toy), toy)


def frozen(toy: Toy) -> None:
    mtp = with_adapter(toy.model(), masks=3)
    two_pass_result(mtp, BATCH.batch, LossConfig(), 0)
    check_base_is_unchanged(mtp, toy)


# Mutants. Originals are bound before anything is patched.

call_sight, call_positions, mask_positions, mask_sight = Call.sight, Call.positions, MaskCall.positions, MaskCall.sight
gate_real, layout_draw, count, sample = Gate.real.fget, Layout.draw, two_pass_module.count, MultiTokenModel.sample
select, is_open = SlotCache.select, Gate.is_open.fget
assert gate_real is not None
assert is_open is not None


def masks_visible_to_real_rows(patch: pytest.MonkeyPatch) -> None:
    def sight(self: Call, slots: int, window: int | None = None) -> Tensor:
        seen = call_sight(self, slots, window).clone()
        real, masks = self.layout.real, self.slots()[:, self.layout.real :]
        seen[:, :, :real].scatter_(3, masks[:, None, None].expand(-1, 1, real, -1), True)
        return seen

    patch.setattr(Call, "sight", sight)


def masks_visible_to_the_last_real_row(patch: pytest.MonkeyPatch) -> None:
    def sight(self: Call, slots: int, window: int | None = None) -> Tensor:
        seen = call_sight(self, slots, window).clone()
        masks = self.slots()[:, self.layout.real :]
        seen[:, 0, self.layout.real - 1].scatter_(1, masks, True)
        return seen

    patch.setattr(Call, "sight", sight)


def other_blocks_visible(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        sight = drawing.sight.clone()
        sight[self.real :, self.real :] = torch.ones(self.masks, self.masks, dtype=torch.bool).tril()
        return replace(drawing, sight=sight)

    patch.setattr(Layout, "draw", draw)


def own_masks_hidden(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        sight = drawing.sight.clone()
        sight[self.real :, self.real :] = torch.eye(self.masks, dtype=torch.bool)
        return replace(drawing, sight=sight)

    patch.setattr(Layout, "draw", draw)


def anchor_hidden(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        sight = drawing.sight.clone()
        anchors = torch.tensor([block.anchor for block in self.blocks for _ in range(block.size)], dtype=torch.int64)
        sight[self.real + torch.arange(self.masks), anchors] = False
        return replace(drawing, sight=sight)

    patch.setattr(Layout, "draw", draw)


def position_plus_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Call, "positions", lambda self: call_positions(self) + 1)


def mask_position_plus_one(patch: pytest.MonkeyPatch) -> None:
    def positions(self: Call) -> Tensor:
        masks = torch.arange(self.layout.rows) >= self.layout.real
        return call_positions(self) + masks

    patch.setattr(Call, "positions", positions)


def trained_position_plus_one(patch: pytest.MonkeyPatch) -> None:
    def positions(self: MaskCall) -> Tensor:
        return (mask_positions(self) + 1).clamp(max=self.last)

    patch.setattr(MaskCall, "positions", positions)


def window_plus_one(patch: pytest.MonkeyPatch) -> None:
    def sight(self: Call, slots: int, window: int | None = None) -> Tensor:
        return call_sight(self, slots, None if window is None else window + 1)

    patch.setattr(Call, "sight", sight)


def trained_window_plus_one(patch: pytest.MonkeyPatch) -> None:
    def sight(self: MaskCall, kept: int, window: int | None = None) -> Tensor:
        return mask_sight(self, kept, None if window is None else window + 1)

    patch.setattr(MaskCall, "sight", sight)


def stale_slot_visible(patch: pytest.MonkeyPatch) -> None:
    def sight(self: Call, slots: int, window: int | None = None) -> Tensor:
        behind = torch.arange(slots) == (self.past + self.layout.rows)[:, None]
        return call_sight(self, slots, window) | behind[:, None, None]

    patch.setattr(Call, "sight", sight)


def sum_instead_of_prefix(patch: pytest.MonkeyPatch) -> None:
    def verify(logits: Tensor, drafts: Tensor, drafted: Tensor) -> Verdict:
        choices = logits.argmax(dim=-1)
        first = drafts.shape[1] - drafted
        missing = torch.arange(drafts.shape[1]) < first[:, None]
        accepted = ((drafts == choices[:, :-1]) | missing).sum(dim=1) - first
        return Verdict(accepted, choices, first)

    patch.setattr(generate_module, "verify_greedy", verify)


def one_accepted_too_many(patch: pytest.MonkeyPatch) -> None:
    def verify(logits: Tensor, drafts: Tensor, drafted: Tensor) -> Verdict:
        verdict = verify_greedy(logits, drafts, drafted)
        return replace(verdict, accepted=torch.minimum(verdict.accepted + 1, drafted))

    patch.setattr(generate_module, "verify_greedy", verify)


def gate_one_row_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "real", property(lambda self: max(gate_real(self) - 1, 0)))


def gate_one_row_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "real", property(lambda self: gate_real(self) + 1))


def gate_never_closed(patch: pytest.MonkeyPatch) -> None:
    def forward(self: GatedLora, gate: Gate) -> Any:
        def add(module: torch.nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            return None if gate.is_open else output + self(args[0])

        return add

    attach = GatedLora.attach

    def attach_leaky(self: GatedLora, linear: torch.nn.Module, gate: Gate) -> Any:
        linear.register_forward_hook(forward(self, gate))
        return attach(self, linear, gate)

    patch.setattr(GatedLora, "attach", attach_leaky)
