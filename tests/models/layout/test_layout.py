"""Layouts against a definition of visible, position and slot written pair by pair."""

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.decoding.config import FixedLayout
from foresay.models.layout.call import Call
from foresay.models.layout.documents import MaskCall
from foresay.models.layout.layout import DRAWINGS, Block, Layout
from foresay.models.layout.tree import Tree
from tests.support.strategies import drawn_trees

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """A row as one would describe it: a real row (mask 0), or mask 1..k after the real row `anchor`."""

    anchor: int
    mask: int
    way: tuple[int, ...]
    """Real rows from the first one to the anchor."""

    @property
    def step(self) -> int:
        return len(self.way) - 1 + self.mask


def rows_of(layout: Layout) -> list[Row]:
    """Real rows first, then block after block."""
    ways: list[tuple[int, ...]] = [(0,)]
    for row in range(1, layout.real):
        draft = row - layout.trunk
        parent = row - 1 if draft < 0 else layout.trunk - 1 + layout.tree.parents[draft]
        ways.append((*ways[parent], row))
    masks = [(block.anchor, mask) for block in layout.blocks for mask in range(1, block.size + 1)]
    return [Row(anchor, mask, ways[anchor]) for anchor, mask in [*((row, 0) for row in range(layout.real)), *masks]]


def sees(query: Row, key: Row) -> bool:
    """The rule of what is visible for two rows of a call."""
    if key.mask == 0:
        return key.anchor in query.way
    return key.anchor == query.anchor and key.mask <= query.mask


@st.composite
def drawn_layouts(draw: st.DrawFn) -> Layout:
    tree = draw(drawn_trees())
    real = tree.drafts + draw(st.integers(1, 4))
    sizes = draw(st.dictionaries(st.integers(0, real - 1), st.integers(1, 4)))
    return Layout(real, tuple(Block(anchor, size) for anchor, size in sizes.items()), tree)


@dataclass(frozen=True)
class Placed:
    call: Call
    past: list[int]
    pads: list[int]


@st.composite
def placed_calls(draw: st.DrawFn) -> Placed:
    layout = draw(drawn_layouts())
    batch = draw(st.integers(1, 3))
    past = draw(st.lists(st.integers(0, 6), min_size=batch, max_size=batch))
    dead = layout.real - 1 if layout.tree.is_chain else 0
    pads = draw(st.lists(st.integers(0, dead), min_size=batch, max_size=batch))
    given_pads = torch.tensor(pads) if any(pads) or (layout.tree.is_chain and draw(st.booleans())) else None
    return Placed(Call(layout, torch.tensor(past), given_pads), past, pads)


@given(drawn_layouts())
def test_drawing_is_the_rule_of_visibility(layout: Layout) -> None:
    rows, drawing = rows_of(layout), layout.draw(CPU)
    assert layout.rows == len(rows)
    assert drawing.offsets.tolist() == [row.step for row in rows]
    assert drawing.visible.tolist() == [[sees(query, key) for key in rows] for query in rows]
    assert drawing.mask_indices.tolist() == [row.mask - 1 for row in rows[layout.real :]]


@given(drawn_layouts())
def test_block_rows_lead_from_an_anchor_to_its_masks(layout: Layout) -> None:
    rows, drawing = rows_of(layout), layout.draw(CPU)
    for anchor in range(layout.real):
        after = [t for t, row in enumerate(rows) if row.mask and row.anchor == anchor]
        size = int(drawing.block_sizes[anchor])
        assert drawing.block_rows[anchor, :size].tolist() == after
        assert ((drawing.block_rows[anchor] >= 0) & (drawing.block_rows[anchor] < layout.rows)).all()


@given(placed_calls())
def test_positions_go_on_behind_what_is_cached(placed: Placed) -> None:
    positions = placed.call.positions().tolist()
    rows = rows_of(placed.call.layout)
    for b, (past, pad) in enumerate(zip(placed.past, placed.pads)):
        live = {t: past + row.step - pad for t, row in enumerate(rows) if row.anchor >= pad}
        assert {t: positions[b][t] for t in live} == live
        assert min(positions[b]) >= 0
        assert all(position <= past for position in positions[b][:pad]), "dead real rows stand before the live ones"


@given(placed_calls())
def test_slots_are_distinct_and_live_real_rows_come_first(placed: Placed) -> None:
    slots, real = placed.call.slots().tolist(), placed.call.layout.real
    for b, (past, pad) in enumerate(zip(placed.past, placed.pads)):
        assert sorted(slots[b]) == list(range(past, past + placed.call.layout.rows))
        assert slots[b][pad:real] == list(range(past, past + real - pad)), "slot s holds position s"


@given(placed_calls(), st.one_of(st.none(), st.integers(1, 8)), st.integers(0, 4))
def test_visible_is_the_rule_for_every_pair(placed: Placed, window: int | None, stale: int) -> None:
    call, rows = placed.call, rows_of(placed.call.layout)
    slots = max(placed.past) + call.layout.rows + stale
    visible, place = call.visible(slots, window)[:, 0].tolist(), call.slots().tolist()
    for b, (past, pad) in enumerate(zip(placed.past, placed.pads)):
        for t, query in enumerate(rows):
            if query.anchor < pad:
                assert visible[b][t][place[b][t]], "dead rows see themselves, or softmax gives NaN"
                continue
            position = past + query.step - pad
            # By hand: the cached tokens, then the live rows of the call; every other slot is dead or stale.
            expected = {slot: slot for slot in range(past)}
            expected |= {
                place[b][u]: past + key.step - pad
                for u, key in enumerate(rows)
                if key.anchor >= pad and sees(query, key)
            }
            near = {slot for slot, there in expected.items() if window is None or position - there < window}
            assert {slot for slot in range(slots) if visible[b][t][slot]} == near


@given(placed_calls(), st.integers(0, 4))
def test_dead_rows_see_what_is_cached_and_their_own_block_only(placed: Placed, stale: int) -> None:
    call, rows = placed.call, rows_of(placed.call.layout)
    slots = max(placed.past) + call.layout.rows + stale
    visible, place = call.visible(slots)[:, 0].tolist(), call.slots().tolist()
    for b, (past, pad) in enumerate(zip(placed.past, placed.pads)):
        for t, query in enumerate(rows):
            if query.anchor < pad:
                own = {place[b][u] for u, key in enumerate(rows) if key.anchor == query.anchor}
                assert {slot for slot in range(slots) if visible[b][t][slot]} <= set(range(past)) | own


@given(drawn_layouts())
def test_a_chain_of_drafts_is_a_chain_of_rows(layout: Layout) -> None:
    chained = Layout(layout.real, layout.blocks, Tree.chain(layout.tree.drafts)).draw(CPU)
    plain = Layout(layout.real, layout.blocks).draw(CPU)
    assert chained.visible.equal(plain.visible)
    assert chained.offsets.equal(plain.offsets)


@given(drawn_layouts(), st.integers(0, 10))
def test_within_keeps_what_fits_and_nothing_else(layout: Layout, room: int) -> None:
    kept = rows_of(layout.within(room))
    assert kept == [row for row in rows_of(layout) if row.step <= room]
    assert layout.within(room).within(room) == layout.within(room)
    assert layout.within(layout.rows) == layout


@pytest.mark.parametrize("masks", range(1, 9))
def test_sizes_of_the_named_layouts(masks: int) -> None:
    assert Layout.plain().rows == 1
    assert Layout.linear(masks + 1, masks).rows == 2 * masks + 1
    assert Layout.quadratic(masks + 1, masks).rows == (masks + 1) ** 2


def test_a_block_must_hang_on_a_real_row() -> None:
    for wrong in (Block(2, 1), Block(-1, 1), Block(0, 0)):
        with pytest.raises(ValueError, match="does not belong to"):
            Layout(2, (wrong,))
    with pytest.raises(ValueError, match="needs a real row"):
        Layout(0)
    with pytest.raises(ValueError, match="needs a real row before 2 drafts, not 2 in all"):
        Layout(2, (), Tree((0, 0)))


def test_a_tree_has_no_dead_rows() -> None:
    Call(Layout(3, (), Tree.chain(2)), torch.tensor([4]), torch.tensor([1]))
    with pytest.raises(ValueError, match="leave no dead rows"):
        Call(Layout(3, (), Tree((0, 0))), torch.tensor([4]), torch.tensor([1]))


@st.composite
def training_calls(draw: st.DrawFn) -> tuple[int, int, list[list[int]]]:
    """(real rows, masks in a block, anchors of every sequence)."""
    real, masks, blocks = draw(st.integers(2, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    anchor = st.lists(st.integers(0, real - 1), min_size=min(blocks, real), max_size=min(blocks, real), unique=True)
    return real, masks, draw(st.lists(anchor, min_size=1, max_size=3))


@given(training_calls(), st.one_of(st.none(), st.integers(1, 6)))
def test_mask_call_is_the_mask_rows_of_the_training_layout(
    case: tuple[int, int, list[list[int]]], window: int | None
) -> None:
    real, masks, anchors = case
    call = MaskCall(torch.tensor(anchors), masks, last=real + masks)
    for b, chosen in enumerate(anchors):
        layout = Layout.training(real, tuple(chosen), masks)
        packed = Call(layout, torch.tensor([0]))
        assert call.rows == layout.masks
        assert torch.equal(call.mask_indices(), layout.draw(CPU).mask_indices)
        assert torch.equal(call.positions()[b], packed.positions()[0, real:])
        assert torch.equal(call.visible(real, window)[b], packed.visible(layout.rows, window)[0, :, real:])


@given(training_calls(), st.one_of(st.none(), st.integers(1, 6)))
def test_no_mask_stands_past_the_last_position_and_rows_before_it_do_not_notice(
    case: tuple[int, int, list[list[int]]], window: int | None
) -> None:
    real, masks, anchors = case
    free, cut = (MaskCall(torch.tensor(anchors), masks, last=last) for last in (real + masks, real - 1))
    inside = free.positions() < real
    assert (cut.positions() < real).all()
    assert torch.equal(cut.positions()[inside], free.positions()[inside])
    assert torch.equal(cut.visible(real, window)[:, 0][inside], free.visible(real, window)[:, 0][inside])


def test_every_fixed_layout_is_drawn_by_its_name() -> None:
    assert tuple(DRAWINGS) == get_args(FixedLayout)
    for name, draw in DRAWINGS.items():
        layout = draw(3, 2, Tree.chain(2))
        assert layout.real == 3
        assert bool(layout.masks) == (name != "plain")
