"""The laws of rows as plain functions: what real rows and masks see, in which slots, through which gate."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.session import Session
from foresay.models.base.cache import SlotCache
from foresay.models.layout.call import Call
from foresay.models.layout.documents import MaskCall
from foresay.models.layout.layout import Block, Layout
from foresay.models.layout.tree import Tree
from foresay.models.masks.model import MaskModel
from tests.support.checks import (
    NEW,
    NothingShownError,
    Oracle,
    assert_close,
    assert_says,
    expected_output,
    prompt_batches,
    run_session,
    sometimes_right,
)
from tests.support.toys import VOCABULARY, Toy, pristine, random_prompts


@dataclass(frozen=True)
class Scene:
    """Texts of which each sequence has cached another number of tokens: the ragged state that rows are called in."""

    ids: Tensor
    """(B, L) int64."""
    past: tuple[int, ...]

    @classmethod
    def random(cls, past: tuple[int, ...] = (8, 3, 5), length: int = 12, seed: int = 0) -> "Scene":
        """Long enough for the toys' windows, short enough for the frequencies of `PHI3_LONGROPE`."""
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.randint(VOCABULARY, (len(past), length), generator=generator), past)

    def cached(self, mtp: MaskModel, slots: int = 120) -> SlotCache:
        """A cache that holds the past of every sequence, from one ragged prefill."""
        cache = SlotCache(mtp.base.layers, slots)
        see(mtp, self, Layout.plain(max(self.past)), cache, starts=[0] * len(self.past), fresh=self.past)
        return cache


@dataclass(frozen=True)
class Seen:
    """What the live real rows of one sequence gave, and the blocks after them."""

    start: int
    """Position of the first row."""
    logits: Tensor
    """(rows, V)."""
    blocks: dict[int, Tensor] = field(default_factory=dict)
    """Position of the anchor -> (size, D) states of its masks."""


@torch.no_grad()
def see(
    mtp: MaskModel,
    scene: Scene,
    layout: Layout,
    cache: SlotCache,
    starts: Sequence[int],
    fresh: Sequence[int] | None = None,
) -> list[Seen]:
    """One call: sequence b brings its tokens from `starts[b]` on, `fresh[b]` of them (None: as many as real rows)."""
    fresh = [layout.real] * len(starts) if fresh is None else fresh
    pads = torch.tensor([layout.real - count for count in fresh])
    places = torch.arange(layout.real) - pads[:, None] + torch.tensor(starts)[:, None]
    ids = scene.ids.gather(1, places.clamp(min=0))
    call = Call(layout, torch.tensor(starts), pads if pads.any() else None)
    rows = mtp.see(ids, call, cache, layout.real)
    drawing = layout.draw(ids.device)
    seen = []
    for b, (start, pad) in enumerate(zip(starts, pads.tolist())):
        blocks = {
            start + block.anchor - pad: rows.states[b, drawing.block_rows[block.anchor, : block.size]]
            for block in layout.blocks
            if block.anchor >= pad
        }
        seen.append(Seen(start, rows.logits[b, pad:], blocks))
    return seen


def layouts(real: int, masks: int) -> list[Layout]:
    """Every layout with `real` real rows in a chain, and an irregular one."""
    irregular = Layout(real, (Block(0, masks), Block(real - 1, 1)))
    return [Layout.plain(real), Layout.linear(real, masks), Layout.quadratic(real, masks), irregular]


def check_real_rows_are_the_base(mtp: MaskModel, toy: Toy, scene: Scene | None = None) -> None:
    """Real rows beside masks, ragged and after a cache, give the logits of the base's own whole forward."""
    scene = scene or Scene.random()
    with torch.no_grad():
        own = pristine(toy)(input_ids=scene.ids, attention_mask=torch.ones_like(scene.ids), use_cache=False).logits
    for layout in layouts(4, 3):
        for fresh in ([4, 4, 4], [4, 1, 2]):
            for b, seen in enumerate(see(mtp, scene, layout, scene.cached(mtp), scene.past, fresh)):
                there = own[b, seen.start : seen.start + fresh[b]]
                assert_close(seen.logits, there, f"{toy.name}, {layout}, sequence {b}")


def random_tree(drafts: int, seed: int) -> Tree:
    """A tree that branches."""
    generator = torch.Generator().manual_seed(seed)
    parents = [0, 0]
    while len(parents) < drafts:
        parents.append(int(torch.randint(parents[-1], len(parents) + 1, (), generator=generator)))
    return Tree(tuple(parents))


@torch.no_grad()
def check_branches_are_texts(mtp: MaskModel, toy: Toy, scene: Scene | None = None, masks: int = 2) -> None:
    """A row of a tree is the base's after the text on its way, and so are the masks after it: training's."""
    scene = scene or Scene.random()
    for seed in range(2):
        tree = random_tree(6, seed)
        layout = Layout.quadratic(tree.drafts + 1, masks, tree)
        drafts = torch.randint(
            VOCABULARY, (len(scene.past), tree.drafts), generator=torch.Generator().manual_seed(seed)
        )
        newest = scene.ids.gather(1, torch.tensor(scene.past)[:, None])
        call = Call(layout, torch.tensor(scene.past))
        seen = mtp.see(torch.cat((newest, drafts), dim=1), call, scene.cached(mtp), layout.real)
        drawing = layout.draw(torch.device("cpu"))
        for b, past in enumerate(scene.past):
            for node, way in enumerate(tree.draw(torch.device("cpu")).ways):
                tokens = torch.cat((scene.ids[b, : past + 1], drafts[b, way[1:].nonzero()[:, 0]]))[None]
                own = pristine(toy)(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
                what = f"{toy.name}, {tree}, node {node} of {b}"
                assert_close(seen.logits[b, node], own[0, -1], what)
                kept, _ = mtp.keep(tokens)
                after = MaskCall(torch.tensor([[tokens.shape[1] - 1]]), masks, last=tokens.shape[1] + masks)
                assert_close(seen.states[b, drawing.block_rows[node]], mtp.see_masks(after, kept)[0], what)


def check_adapter_cannot_reach_real_rows(one: MaskModel, other: MaskModel, toy: Toy) -> None:
    """Two adapters on the same base give real rows that are equal to the bit."""
    scene = Scene.random()
    for layout in layouts(4, 3):
        pair = [see(mtp, scene, layout, scene.cached(mtp), scene.past, [4, 1, 2]) for mtp in (one, other)]
        for b, (mine, theirs) in enumerate(zip(*pair)):
            assert torch.equal(mine.logits, theirs.logits), f"{toy.name}, {layout}: the adapter shows in sequence {b}"
            for anchor, states in mine.blocks.items():
                if torch.allclose(states, theirs.blocks[anchor]):
                    raise NothingShownError(f"{toy.name}: two adapters do the same")


def check_mask_states_agree(mtp: MaskModel, toy: Toy, scene: Scene | None = None, masks: int = 3) -> None:
    """A block after the same prefix has the same states in training, prefill, linear and quadratic."""
    scene = scene or Scene.random()
    length = scene.ids.shape[1]
    anchors = torch.arange(length).expand(len(scene.past), -1)
    with torch.no_grad():
        cache, _ = mtp.keep(scene.ids)
        call = MaskCall(anchors, masks, last=length + masks)
        trained = mtp.see_masks(call, cache).view(len(anchors), length, masks, -1)
    zeros, calls = [0] * len(scene.past), []
    prefill = SlotCache(mtp.base.layers, 120)
    calls += [("prefill", see(mtp, scene, Layout.linear(max(scene.past), masks), prefill, zeros, scene.past))]
    for layout in (Layout.linear(1, masks), Layout.linear(4, masks), Layout.quadratic(4, masks)):
        for fresh in ([layout.real] * 3, [layout.real, 1, min(layout.real, 2)]):
            calls += [(str(layout), see(mtp, scene, layout, scene.cached(mtp), scene.past, fresh))]
    compared = 0
    for name, seen in calls:
        for b, sequence in enumerate(seen):
            for anchor, states in sequence.blocks.items():
                assert_close(states, trained[b, anchor], f"{toy.name}, {name}, after {anchor} of {b}")
                compared += 1
    if compared < 30:
        raise NothingShownError(f"only {compared} blocks were compared")


# Slots.


def poison(cache: SlotCache, past: Sequence[int]) -> None:
    """Fill the slots after what each sequence has cached with 1e4."""
    for layer in cache.layers:
        for b, length in enumerate(past):
            layer.keys[b, :, length:] = 1e4
            layer.values[b, :, length:] = 1e4


def check_stale_slots_are_unseen(mtp: MaskModel, toy: Toy) -> None:
    """Slots beyond the cached length filled with 1e4 change nothing, to the bit."""
    scene = Scene.random()
    for layout in layouts(4, 3):
        results = []
        for spoil in (False, True):
            cache = scene.cached(mtp)
            if spoil:
                poison(cache, scene.past)
            results.append(see(mtp, scene, layout, cache, scene.past, [4, 1, 2]))
        for b, (clean, spoilt) in enumerate(zip(*results)):
            assert torch.equal(clean.logits, spoilt.logits), f"{toy.name}, {layout}: sequence {b} saw a stale slot"
            for anchor, states in clean.blocks.items():
                assert torch.equal(states, spoilt.blocks[anchor]), f"{toy.name}, {layout}: masks saw a stale slot"


def check_stale_slots_change_no_token(mtp: MaskModel, toy: Toy, layout: LayoutName) -> None:
    """Poison between all steps of a ragged batch leaves the output plain's."""
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)

    def between(session: Session) -> None:
        poison(session.cache, [live.row.past for live in session.live])

    for batch in prompt_batches():
        outputs = [expected_output(mtp, toy, prompt, config) for prompt in batch]
        generations = run_session(mtp, batch, config, Oracle(outputs, sometimes_right), between)
        for generation, output in zip(generations, outputs):
            assert_says(generation, output, f"{toy.name}, {layout}, poisoned")


# The gate.


def check_closed_gate_is_the_base(mtp: MaskModel, toy: Toy) -> None:
    """Called as transformers calls it, the hooked base is bit for bit the one nobody touched."""
    [short, long] = random_prompts((5, 9))
    ids = torch.tensor([[0] * (len(long) - len(short)) + list(short), list(long)])
    attended = torch.ones_like(ids)
    attended[0, : len(long) - len(short)] = 0
    with torch.no_grad():
        outputs = [
            model(input_ids=ids, attention_mask=attended, use_cache=True) for model in (mtp.model, pristine(toy))
        ]
    assert torch.equal(outputs[0].logits, outputs[1].logits), f"{toy.name}: the closed gate leaks"
    kept = [said["cache" if "cache" in said else "past_key_values"] for said in outputs]  # renamed in transformers 5.24
    for mine, own in zip(kept[0].layers, kept[1].layers, strict=True):
        assert torch.equal(mine.keys, own.keys), f"{toy.name}: the closed gate leaks into keys"
        assert torch.equal(mine.values, own.values), f"{toy.name}: the closed gate leaks into values"


def check_base_is_unchanged(mtp: MaskModel, toy: Toy) -> None:
    """Every weight of the base is what it was, to the bit, and none asks for a gradient."""
    own, now = pristine(toy).state_dict(), mtp.model.state_dict()
    assert own.keys() == now.keys()
    for name, tensor in now.items():
        assert torch.equal(tensor, own[name]), f"{toy.name}: {name} changed"
    for name, parameter in mtp.model.named_parameters():
        assert not parameter.requires_grad, f"{toy.name}: {name} is trained"
        assert parameter.grad is None, f"{toy.name}: {name} has a gradient"
    assert not any(module.training for module in mtp.model.modules())
