"""Every law turns red when the code is broken on purpose; a law that no mutant can break proves nothing.

A mutant replaces one small function; each law named beside it must raise AssertionError, and passes without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from foresay.decoding import generate as generate_module
from foresay.decoding.config import DecodeConfig
from foresay.decoding.sampling import chooser as choose_module
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_greedy
from foresay.models.base.cache import SlotCache
from foresay.models.base.model import Base
from foresay.models.layout.call import Call
from foresay.models.layout.documents import MaskCall
from foresay.models.layout.layout import Layout
from foresay.models.masks.gate import Gate
from foresay.models.masks.lora import LoraGroup
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.objectives import losses as losses_module
from foresay.training.objectives import two_pass as two_pass_module
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.two_pass import Denominators
from tests.support.checks import (
    check_drafter_changes_nothing,
    check_greedy_is_plain,
    check_layouts_agree,
    late_stops,
    sometimes_right,
)
from tests.support.row_checks import (
    check_adapter_cannot_reach_real_rows,
    check_base_is_unchanged,
    check_branches_are_texts,
    check_closed_gate_is_the_base,
    check_mask_states_agree,
    check_real_rows_are_the_base,
    check_stale_slots_are_unseen,
    check_stale_slots_change_no_token,
)
from tests.support.toys import (
    GEMMA2,
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    PHI3_LONGROPE,
    QWEN3_MOE,
    SWITCH,
    Toy,
    adapted,
    random_prompts,
    with_adapter,
)
from tests.support.training_checks import (
    Ragged,
    check_consistency_sends_no_gradient_to_its_anchor,
    check_two_passes_are_one,
    one_pass_result,
    two_pass_result,
)

QUADRATIC = DecodeConfig(layout="quadratic", masks=3, max_new_tokens=32)
BATCH = Ragged.random()
Patch = Callable[[pytest.MonkeyPatch], None]
Law = Callable[[Toy], None]


# Laws, each with a toy of its own.


def real_rows(toy: Toy) -> None:
    check_real_rows_are_the_base(adapted(toy), toy)


def out_of_reach(toy: Toy) -> None:
    check_adapter_cannot_reach_real_rows(adapted(toy), adapted(toy, 2), toy)


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


def greedy_tree(toy: Toy) -> None:
    config = DecodeConfig(layout="tree", masks=3, max_new_tokens=32)
    check_drafter_changes_nothing(adapted(toy), toy, config, sometimes_right)


def branches_are_texts(toy: Toy) -> None:
    check_branches_are_texts(adapted(toy), toy)


def greedy_across_the_switch(toy: Toy) -> None:
    prompts = random_prompts((3, 5, SWITCH - 2, SWITCH, SWITCH + 4))
    check_greedy_is_plain(adapted(toy), toy, QUADRATIC, [prompts, *([prompt] for prompt in prompts)])


def greedy_with_stops(toy: Toy) -> None:
    mtp = adapted(toy)
    stops = late_stops(mtp, toy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtp.model.generation_config, "eos_token_id", stops)
        check_greedy_is_plain(mtp, toy, QUADRATIC)


def two_passes(toy: Toy) -> None:
    trainee = with_adapter(toy.model(), masks=3)
    for real in (False, True):
        config = LossConfig(real_rows=real)
        plain = one_pass_result(trainee, BATCH.batch, config)
        check_two_passes_are_one(two_pass_result(trainee, BATCH.batch, config, 7), plain)


def closed_gate(toy: Toy) -> None:
    check_closed_gate_is_the_base(with_adapter(toy.model()), toy)


def frozen(toy: Toy) -> None:
    mtp = with_adapter(toy.model(), masks=3)
    two_pass_result(mtp, BATCH.batch, LossConfig(), 0)
    check_base_is_unchanged(mtp, toy)


def detached_anchor(toy: Toy) -> None:
    check_consistency_sends_no_gradient_to_its_anchor()


# Mutants. Originals are bound before anything is patched.

call_visible, call_positions, mask_positions, mask_reach = (
    Call.visible,
    Call.positions,
    MaskCall.positions,
    MaskCall.reach,
)
gate_real, lora_attach, base_init, cache_select = Gate.real.__get__, LoraGroup.attach, Base.__init__, SlotCache.select
layout_draw, count, sample = Layout.draw, two_pass_module.count, MaskModel.sample
cache_move, verdict_last = SlotCache.move, Verification.last.__get__


def masks_visible_to_real_rows(patch: pytest.MonkeyPatch) -> None:
    def visible(self: Call, slots: int, window: int | None = None) -> Tensor:
        seen = call_visible(self, slots, window).clone()
        real, masks = self.layout.real, self.slots()[:, self.layout.real :]
        seen[:, :, :real].scatter_(3, masks[:, None, None].expand(-1, 1, real, -1), True)
        return seen

    patch.setattr(Call, "visible", visible)


def masks_visible_to_the_last_real_row(patch: pytest.MonkeyPatch) -> None:
    def visible(self: Call, slots: int, window: int | None = None) -> Tensor:
        seen = call_visible(self, slots, window).clone()
        masks = self.slots()[:, self.layout.real :]
        seen[:, 0, self.layout.real - 1].scatter_(1, masks, True)
        return seen

    patch.setattr(Call, "visible", visible)


def other_blocks_visible(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        visible = drawing.visible.clone()
        visible[self.real :, self.real :] = torch.ones(self.masks, self.masks, dtype=torch.bool).tril()
        return replace(drawing, visible=visible)

    patch.setattr(Layout, "draw", draw)


def own_masks_hidden(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        visible = drawing.visible.clone()
        visible[self.real :, self.real :] = torch.eye(self.masks, dtype=torch.bool)
        return replace(drawing, visible=visible)

    patch.setattr(Layout, "draw", draw)


def anchor_hidden(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        visible = drawing.visible.clone()
        anchors = torch.tensor([block.anchor for block in self.blocks for _ in range(block.size)], dtype=torch.int64)
        visible[self.real + torch.arange(self.masks), anchors] = False
        return replace(drawing, visible=visible)

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
    def visible(self: Call, slots: int, window: int | None = None) -> Tensor:
        return call_visible(self, slots, None if window is None else window + 1)

    patch.setattr(Call, "visible", visible)


def trained_window_plus_one(patch: pytest.MonkeyPatch) -> None:
    def reach(self: MaskCall, window: int | None = None) -> Tensor:
        return mask_reach(self, None if window is None else window + 1)

    patch.setattr(MaskCall, "reach", reach)


def stale_slot_visible(patch: pytest.MonkeyPatch) -> None:
    def visible(self: Call, slots: int, window: int | None = None) -> Tensor:
        after = torch.arange(slots) == (self.past + self.layout.rows)[:, None]
        return call_visible(self, slots, window) | after[:, None, None]

    patch.setattr(Call, "visible", visible)


def linear_sees_other_positions(patch: pytest.MonkeyPatch) -> None:
    def positions(self: Call) -> Tensor:
        last_block_only = len(self.layout.blocks) == 1 and self.layout.real > 1
        masks = torch.arange(self.layout.rows) >= self.layout.real
        return call_positions(self) + (masks & last_block_only)

    patch.setattr(Call, "positions", positions)


def sum_instead_of_prefix(patch: pytest.MonkeyPatch) -> None:
    def verify(logits: Tensor, asked: DraftsToVerify) -> Verification:
        choices, rows = logits.argmax(dim=-1), torch.arange(logits.shape[1])
        right = (asked.tokens == choices[:, asked.tree.draw(logits.device).parents]) & (rows > asked.roots[:, None])
        path = (asked.roots[:, None] + rows).clamp(max=len(rows) - 1)
        return Verification(right.sum(dim=1), path, choices.gather(1, path))

    patch.setattr(choose_module, "verify_greedy", verify)


def one_accepted_too_many(patch: pytest.MonkeyPatch) -> None:
    def verify(logits: Tensor, asked: DraftsToVerify) -> Verification:
        verdict = verify_greedy(logits, asked)
        return replace(verdict, accepted=torch.minimum(verdict.accepted + 1, torch.tensor(asked.counts)))

    patch.setattr(choose_module, "verify_greedy", verify)


def other_branches_visible(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        visible = drawing.visible.clone()
        visible[: self.real, : self.real] = torch.ones(self.real, self.real, dtype=torch.bool).tril()
        return replace(drawing, visible=visible)

    patch.setattr(Layout, "draw", draw)


def masks_see_other_branches(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        visible = drawing.visible.clone()
        for block, rows in zip(self.blocks, drawing.block_rows):
            visible[rows[: block.size], : block.anchor] = True
        return replace(drawing, visible=visible)

    patch.setattr(Layout, "draw", draw)


def siblings_stand_in_a_row(patch: pytest.MonkeyPatch) -> None:
    def draw(self: Layout, device: torch.device) -> Any:
        drawing = layout_draw(self, device)
        return replace(drawing, offsets=torch.cat((torch.arange(self.real), drawing.offsets[self.real :])))

    patch.setattr(Layout, "draw", draw)


def nothing_moved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SlotCache, "move", lambda self, start, slots: None)


def moved_in_another_order(patch: pytest.MonkeyPatch) -> None:
    def move(self: SlotCache, start: Tensor, slots: Tensor) -> None:
        cache_move(self, start, slots.roll(1, dims=1))

    patch.setattr(SlotCache, "move", move)


def keys_moved_and_values_not(patch: pytest.MonkeyPatch) -> None:
    def move(self: SlotCache, start: Tensor, slots: Tensor) -> None:
        values = [layer.values.clone() for layer in self.layers]
        cache_move(self, start, slots)
        for layer, kept in zip(self.layers, values):
            layer.values = kept

    patch.setattr(SlotCache, "move", move)


def path_takes_the_first_rows(patch: pytest.MonkeyPatch) -> None:
    def verify(logits: Tensor, asked: DraftsToVerify) -> Verification:
        verdict = verify_greedy(logits, asked)
        rows = torch.arange(verdict.path.shape[1]).expand_as(verdict.path)
        return replace(verdict, path=torch.where(rows <= verdict.accepted[:, None], rows, verdict.path))

    patch.setattr(choose_module, "verify_greedy", verify)


def drafts_from_the_block_of_another_branch(patch: pytest.MonkeyPatch) -> None:
    def last(self: Verification) -> Tensor:
        # Right where drafts are a chain and none is missing.
        return verdict_last(self) if self.path.shape[1] == 1 else self.path[:, 0] + self.accepted

    patch.setattr(Verification, "last", property(last))


def gate_one_row_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "real", property(lambda self: max(gate_real(self) - 1, 0)))


def gate_one_row_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "real", property(lambda self: gate_real(self) + 1))


def gate_ajar(patch: pytest.MonkeyPatch) -> None:
    def attach(self: LoraGroup, linears: Any) -> Any:
        def add(module: torch.nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            return None if self.gate.is_open else output + 1e-6 * self.pairs[0](args[0])

        linears[self.pairs[0].name].register_forward_hook(add)
        return lora_attach(self, linears)

    patch.setattr(LoraGroup, "attach", attach)


def base_not_frozen(patch: pytest.MonkeyPatch) -> None:
    def init(self: Base, model: Any) -> None:
        base_init(self, model)
        model.requires_grad_(True)

    patch.setattr(Base, "__init__", init)


def finished_sequences_kept_in_the_cache(patch: pytest.MonkeyPatch) -> None:
    def select(self: SlotCache, sequences: Sequence[int]) -> None:
        cache_select(self, range(len(sequences)))

    patch.setattr(SlotCache, "select", select)


def masks_past_the_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Layout, "within", lambda self, room: self)


def batch_across_the_switch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(generate_module, "_groups", lambda model, prompts, config: [list(range(len(prompts)))])


def shares_of_masks_that_were_not_processed(patch: pytest.MonkeyPatch) -> None:
    def counted(batch: Batch, size: int, config: LossConfig) -> Denominators:
        counts = count(batch, size, config)
        everyone = torch.arange(counts.shares.shape[1]).clamp(min=1, max=size)
        return replace(counts, shares=torch.where(counts.shares > 0, 1 / everyone, 0.0))

    patch.setattr(two_pass_module, "count", counted)


def positions_without_masks_not_counted(patch: pytest.MonkeyPatch) -> None:
    def counted(batch: Batch, size: int, config: LossConfig) -> Denominators:
        counts = count(batch, size, config)
        return replace(counts, real=int((counts.shares > 0).sum()))

    patch.setattr(two_pass_module, "count", counted)


def sampler_reads_another_token(patch: pytest.MonkeyPatch) -> None:
    def shifted(self: MaskModel, previous: Tensor, states: Tensor) -> Tensor:
        return sample(self, previous.roll(1), states)

    patch.setattr(MaskModel, "sample", shifted)


def anchor_learns(patch: pytest.MonkeyPatch) -> None:
    def attached(states: Tensor, anchors: Tensor, shares: Tensor) -> Tensor:
        return ((states - anchors).pow(2).mean(dim=-1) * shares).sum()

    patch.setattr(losses_module, "consistency_sum", attached)


MUTANTS: list[tuple[Patch, Law, Toy]] = [
    (masks_visible_to_real_rows, real_rows, LLAMA),
    (masks_visible_to_real_rows, out_of_reach, LLAMA),
    (masks_visible_to_real_rows, greedy, LLAMA),
    (masks_visible_to_the_last_real_row, real_rows, GPT2),
    (masks_visible_to_the_last_real_row, greedy, GEMMA3),
    (other_blocks_visible, mask_states, LLAMA),
    (own_masks_hidden, mask_states, LLAMA),
    (anchor_hidden, mask_states, GPT2),
    # Rotary positions are relative: all rows one too far change nothing there, so absolute ones have to tell.
    (position_plus_one, real_rows, GPT2),
    (position_plus_one, greedy, GPT2),
    (mask_position_plus_one, mask_states, LLAMA),
    (mask_position_plus_one, mask_states, GPT2),
    (trained_position_plus_one, mask_states, LLAMA),
    (trained_position_plus_one, two_passes, LLAMA),
    (window_plus_one, real_rows, MISTRAL_WINDOW),
    (window_plus_one, greedy, MISTRAL_WINDOW),
    (window_plus_one, real_rows, GEMMA3),
    (trained_window_plus_one, mask_states, GEMMA3),
    (trained_window_plus_one, two_passes, MISTRAL_WINDOW),
    (stale_slot_visible, stale_slots, LLAMA),
    (stale_slot_visible, stale_tokens, LLAMA),
    (stale_slot_visible, stale_slots, GEMMA2),
    (other_branches_visible, branches_are_texts, LLAMA),
    (other_branches_visible, greedy_tree, LLAMA),
    (masks_see_other_branches, branches_are_texts, GPT2),
    (siblings_stand_in_a_row, branches_are_texts, GPT2),
    (siblings_stand_in_a_row, greedy_tree, LLAMA),
    (nothing_moved, greedy_tree, LLAMA),
    (moved_in_another_order, greedy_tree, LLAMA),
    (keys_moved_and_values_not, greedy_tree, GEMMA2),
    (path_takes_the_first_rows, greedy_tree, LLAMA),
    (stale_slot_visible, branches_are_texts, LLAMA),
    (sum_instead_of_prefix, greedy_half_right, LLAMA),
    (one_accepted_too_many, greedy, LLAMA),
    (gate_one_row_early, real_rows, LLAMA),
    (gate_one_row_early, out_of_reach, GPT2),
    (gate_one_row_early, greedy, LLAMA),
    (gate_one_row_early, real_rows, QWEN3_MOE),
    (gate_one_row_late, mask_states, LLAMA),
    (gate_one_row_late, two_passes, GPT2),
    (gate_ajar, closed_gate, LLAMA),
    (gate_ajar, closed_gate, GPT2),
    (base_not_frozen, frozen, LLAMA),
    (finished_sequences_kept_in_the_cache, greedy_with_stops, LLAMA),
    (masks_past_the_limit, greedy_across_the_switch, PHI3_LONGROPE),
    (batch_across_the_switch, greedy_across_the_switch, PHI3_LONGROPE),
    (shares_of_masks_that_were_not_processed, two_passes, LLAMA),
    (positions_without_masks_not_counted, two_passes, LLAMA),
    (anchor_learns, detached_anchor, LLAMA),
    (sampler_reads_another_token, two_passes, LLAMA),
    (linear_sees_other_positions, layouts_agree, LLAMA),
    (drafts_from_the_block_of_another_branch, layouts_agree, LLAMA),
]


def ids(value: Any) -> str:
    return str(getattr(value, "__name__", getattr(value, "name", value)))


@pytest.mark.parametrize(("mutant", "law", "toy"), MUTANTS, ids=ids)
def test_mutant_turns_the_law_red(mutant: Patch, law: Law, toy: Toy) -> None:
    # Built before anything breaks: the probe refuses some of the mutants by itself.
    adapted(toy)
    adapted(toy, 2)
    with pytest.MonkeyPatch.context() as patch:
        mutant(patch)
        with pytest.raises(AssertionError):
            law(toy)


LAWS = list(dict.fromkeys((law, toy) for _, law, toy in MUTANTS))


@pytest.mark.parametrize(("law", "toy"), LAWS, ids=ids)
def test_law_is_green_without_mutants(law: Law, toy: Toy) -> None:
    law(toy)
