"""The laws as plain functions, called by the tests (must pass) and by the mutants (must raise AssertionError)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from torch import Tensor

from foresay.data.example import Example
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.generate import generate
from foresay.decoding.planning.draft_tree import tree_for
from foresay.decoding.sampling.chooser import Drafter, Greedy
from foresay.decoding.sampling.draft import draft_greedy
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation
from foresay.models.base.cache import SlotCache
from foresay.models.layout.call import Call
from foresay.models.layout.documents import MaskCall
from foresay.models.layout.layout import Block, Layout
from foresay.models.layout.tree import Tree
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.loop.progress import Losses
from foresay.training.objectives import losses
from foresay.training.objectives.batches import Batch, collate
from foresay.training.objectives.one_pass import one_pass
from foresay.training.objectives.two_pass import two_pass
from tests.support.layouts import DRAFTING
from tests.support.toys import VOCABULARY, Toy, own_output, pristine, random_prompts

FLOAT32 = 2e-5
"""Float32: largest distance of two logits or states, over the largest magnitude among them. Seen: up to 2e-6."""
DISTINCT = 30
"""Fewest distinct tokens in the outputs of a case: loops are easy to say and prove nothing."""
NEW = 32
BATCHES = ((5,), (9, 2), (7, 4, 1, 6, 13))
"""Lengths of the prompts of batches of 1, 2 and 5."""


class NothingShownError(Exception):
    """The case cannot break the law, so that it passes proves nothing; not an AssertionError, which mutants earn."""


def require_distinct(generations: Sequence[Generation], name: str) -> None:
    """Raise NothingShownError for outputs that loop."""
    distinct = {token for generation in generations for token in generation.tokens}
    if len(distinct) < DISTINCT:
        raise NothingShownError(f"{name}: {len(distinct)} distinct tokens in the outputs, {DISTINCT} are needed")


def assert_close(one: Tensor, other: Tensor, what: str) -> None:
    """Same shape, finite, and as near as rounding allows."""
    assert one.shape == other.shape, f"{what}: {tuple(one.shape)} and {tuple(other.shape)}"
    distance = ((one - other).abs().max() / other.abs().max()).item()
    assert distance <= FLOAT32, f"{what}: {distance:.1e} apart, allowed {FLOAT32:.1e}"


# Greedy output equals plain.


def prompt_batches(lengths: Sequence[Sequence[int]] = BATCHES) -> list[list[tuple[int, ...]]]:
    """A batch of random prompts for each list of lengths."""
    return [random_prompts(some, seed) for seed, some in enumerate(lengths)]


def check_greedy_is_plain(
    mtp: MaskModel,
    toy: Toy,
    config: DecodeConfig,
    batches: Sequence[Sequence[tuple[int, ...]]] = (),
) -> list[Generation]:
    """With its own drafts, every batch says what transformers' `generate` says to each prompt alone, to the token."""
    done = []
    for batch in batches or prompt_batches():
        generations = generate(mtp, batch, config)
        for prompt, generation in zip(batch, generations):
            assert_says(
                generation, expected_output(mtp, toy, prompt, config), f"{toy.name}, {config}, {len(prompt)} tokens"
            )
        done += generations
    require_distinct(done, toy.name)
    return done


def assert_says(generation: Generation, expected: list[int], what: str) -> None:
    """The generation's tokens are `expected`, and its steps add up."""
    assert generation.tokens == expected, f"{what}: says {generation.tokens}, plain is {expected}"
    for step in generation.steps:
        assert 1 <= len(step.tokens) <= step.depth + 1 <= step.drafted + 1, f"{what}: {step}"
        assert step.accepted in (len(step.tokens) - 1, len(step.tokens)), f"{what}: {step}"


def expected_output(mtp: MaskModel, toy: Toy, prompt: tuple[int, ...], config: DecodeConfig) -> list[int]:
    """What transformers says within the same limits and up to the same stop tokens."""
    longest = min(len(prompt) + config.max_new_tokens, pristine(toy).config.max_position_embeddings)
    stops = () if config.ignore_stop else mtp.base.stop_tokens
    return own_output(toy, prompt, longest, stops)


def late_stops(mtp: MaskModel, toy: Toy, max_new_tokens: int = NEW) -> list[int]:
    """Two stop tokens that each end some prompts of the batches and not all."""
    config = DecodeConfig(max_new_tokens=max_new_tokens)
    outputs = [expected_output(mtp, toy, prompt, config) for batch in prompt_batches() for prompt in batch]
    ended = {token: sum(token in output for output in outputs) for token in range(VOCABULARY)}
    return [token for token in range(VOCABULARY) if 2 <= ended[token] <= 3][:2]


# Drafters that know the answer.

Spoil = Callable[[int, int, Tensor], bool]
"""(prompt index, place in the output, mask state (D,)) -> the draft for that place is made wrong."""


def always_right(index: int, place: int, state: Tensor) -> bool:
    """Spoil nothing."""
    return False


def always_wrong(index: int, place: int, state: Tensor) -> bool:
    """Spoil every draft."""
    return True


def sometimes_right(index: int, place: int, state: Tensor) -> bool:
    """Spoil some places, other ones for every prompt, so that right drafts stand after wrong ones too."""
    return (place * place + 3 * place + index) % 5 == 0


def right_by_state(index: int, place: int, state: Tensor) -> bool:
    """Spoil by what the mask row says: acceptance is then a function of mask states."""
    return bool(state.sum() < 0)


@dataclass
class Oracle:
    """A drafter that knows what plain decoding says, and spoils some of it on purpose.

    Where drafts branch, one candidate after each token is right, in turn one of those that lead deepest; after
    wrong drafts stand right ones too.
    """

    outputs: Sequence[Sequence[int]]
    spoil: Spoil
    session: Session | None = None

    def __call__(self, model: MaskModel, states: Tensor, newest: Tensor, tree: Tree) -> Tensor:
        assert self.session is not None
        tree = tree.within(states.shape[1])
        drafts = [
            self._draft(live.index, sum(len(step.tokens) for step in live.steps), block, token, tree)
            for live, block, token in zip(self.session.live, states, newest.tolist(), strict=True)
        ]
        return torch.tensor(drafts)

    def _draft(self, index: int, said: int, block: Tensor, newest: int, tree: Tree) -> list[int]:
        output = self.outputs[index]
        assert output[said - 1] == newest, f"prompt {index} left the plain output at token {said}"
        right = [*output[said:], *[0] * len(block)][: len(block)]
        wrong = [self.spoil(index, said + place, state) for place, state in enumerate(block)]
        drafts = []
        for draft, (parent, depth) in enumerate(zip(tree.parents, tree.depths[1:])):
            deepest = leads_deepest(tree, parent)
            siblings, rank = tree.parents.count(parent), draft - tree.parents.index(parent)
            off = (rank - deepest[(said + depth) % len(deepest)]) % siblings + wrong[depth - 1]
            drafts.append((right[depth - 1] + off) % VOCABULARY)
        return drafts


@cache
def leads_deepest(tree: Tree, node: int) -> list[int]:
    """Ranks of the drafts after `node` from which the tree goes on longest."""
    heights = [0] * (tree.drafts + 1)
    for draft in range(tree.drafts, 0, -1):
        parent = tree.parents[draft - 1]
        heights[parent] = max(heights[parent], heights[draft] + 1)
    after = [heights[draft] for draft, parent in enumerate(tree.parents, 1) if parent == node]
    return [rank for rank, height in enumerate(after) if height == max(after)]


def run_session(
    mtp: MaskModel,
    prompts: Sequence[tuple[int, ...]],
    config: DecodeConfig,
    drafter: Drafter = draft_greedy,
    between: Callable[[Session], None] | None = None,
) -> list[Generation]:
    """`generate` with the session in reach of the drafter and of `between`, which is called after every step."""
    session = Session(mtp, prompts, config, Greedy(drafter=drafter))
    if isinstance(drafter, Oracle):
        drafter.session = session
    while session.live:
        session.step()
        if between is not None:
            between(session)
    return [session.done[index] for index in range(len(prompts))]


def check_drafter_changes_nothing(
    mtp: MaskModel,
    toy: Toy,
    config: DecodeConfig,
    spoil: Spoil,
    batches: Sequence[Sequence[tuple[int, ...]]] = (),
) -> list[Generation]:
    """Whatever is drafted, the output is plain's."""
    done = []
    for batch in batches or prompt_batches():
        outputs = [expected_output(mtp, toy, prompt, config) for prompt in batch]
        generations = run_session(mtp, batch, config, Oracle(outputs, spoil))
        for generation, output in zip(generations, outputs):
            assert_says(generation, output, f"{toy.name}, {config}, {spoil.__name__}")
        done += generations
    require_distinct(done, toy.name)
    return done


def check_counts(generations: Sequence[Generation], depth: int, rightly: bool) -> None:
    """Right drafts are all kept and wrong ones never: away from the context's end this fixes the number of steps."""
    for generation in generations:
        tokens = len(generation.tokens)
        steps = 1 + math.ceil((tokens - 1) / (depth + 1)) if rightly else tokens
        assert len(generation.steps) == steps, f"{len(generation.steps)} steps for {tokens} tokens, not {steps}"
        assert rightly or not any(step.accepted for step in generation.steps)


def check_layouts_agree(mtp: MaskModel, toy: Toy, masks: int) -> None:
    """Where layouts verify drafts after the same prefix, they accept the same number.

    Drafts are spoilt by their mask states, so that a block that saw something else would accept something else.
    """
    verified: dict[str, dict[tuple[int, int], int]] = {}
    for layout in DRAFTING:
        config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=3 * NEW, branches=2, nodes=40)
        assert layout != "tree" or tree_for(mtp, config).depths[-1] == masks
        verified[layout] = {}
        for number, batch in enumerate(prompt_batches()):
            outputs = [expected_output(mtp, toy, prompt, config) for prompt in batch]
            for index, generation in enumerate(run_session(mtp, batch, config, Oracle(outputs, right_by_state))):
                said = 0
                for step in generation.steps:
                    if step.drafted:
                        verified[layout][10 * number + index, said] = step.accepted
                    said += len(step.tokens)
    for layout in ("linear", "tree"):
        shared = verified[layout].keys() & verified["quadratic"].keys()
        apart = {place for place in shared if verified[layout][place] != verified["quadratic"][place]}
        assert not apart, f"{toy.name}: {layout} and quadratic accept differently at {sorted(apart)}"
        if len({verified[layout][place] for place in shared}) < 2:
            raise NothingShownError(f"{toy.name}: the same number is accepted at all of {len(shared)} shared places")


# Rows.


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
    for mine, own in zip(outputs[0].past_key_values.layers, outputs[1].past_key_values.layers, strict=True):
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


# Training.

WEIGHTS = {"base_weight": 0.7, "sampler_weight": 1.3, "consistency_weight": 0.9}


@dataclass(frozen=True)
class Ragged:
    """A training batch with the lengths of its sequences."""

    batch: Batch
    lengths: tuple[int, ...]

    @classmethod
    def random(cls, lengths: tuple[int, ...] = (16, 11, 6), anchors: int = 9, seed: int = 0) -> "Ragged":
        """Sequences with prompts of 2, 3, ... tokens and `anchors` blocks each, where there are as many (0: all)."""
        texts = random_prompts(lengths, seed)
        examples = [Example(text, tuple(t >= 2 + b for t in range(len(text)))) for b, text in enumerate(texts)]
        return cls(collate(examples, anchors, torch.Generator().manual_seed(seed), torch.device("cpu")), lengths)


@dataclass(frozen=True)
class Result:
    """Loss parts and the gradient of every tensor of the adapter, by name."""

    losses: Losses
    gradients: dict[str, Tensor]


def two_pass_result(mtp: MaskModel, batch: Batch, config: LossConfig, chunk_anchors: int) -> Result:
    """Losses and gradients of `two_pass`."""
    return result_of(mtp, lambda: two_pass(mtp, batch, config, chunk_anchors))


def one_pass_result(mtp: MaskModel, batch: Batch, config: LossConfig) -> Result:
    """Losses and gradients of the paper's single pass."""
    return result_of(mtp, lambda: one_pass(mtp, batch, config))


def result_of(mtp: MaskModel, step: Callable[[], Losses]) -> Result:
    """What a step leaves in the adapter that it is the first of."""
    mtp.adapter.zero_grad(set_to_none=True)
    parts = step()
    return Result(parts, {name: p.grad for name, p in mtp.adapter.named_parameters() if p.grad is not None})


def check_two_passes_are_one(ours: Result, plain: Result, tolerance: float = 5e-5) -> None:
    """Every loss part and the gradient of every tensor of the adapter are those of the paper's single pass."""
    for part in ("base", "sampler", "consistency", "total"):
        mine, theirs = getattr(ours.losses, part), getattr(plain.losses, part)
        assert mine == pytest.approx(theirs, rel=tolerance), f"{part}: {mine}, in one pass {theirs}"
    assert ours.gradients.keys() == plain.gradients.keys()
    for name, gradient in plain.gradients.items():
        if not gradient.any():
            raise NothingShownError(f"{name} gets no gradient")
        apart = ((ours.gradients[name] - gradient).norm() / gradient.norm()).item()
        assert apart <= tolerance, f"gradient of {name}: {apart:.1e} apart"


def check_consistency_sends_no_gradient_to_its_anchor() -> None:
    """The states that masks are drawn to do not move; the gradient of the masks is that of a mean square."""
    generator = torch.Generator().manual_seed(0)
    states, anchors = (torch.randn(4, 8, generator=generator).requires_grad_() for _ in range(2))
    shares = torch.tensor([1.0, 0.5, 0.5, 0.25])
    losses.consistency_sum(states, anchors, shares).backward()
    assert anchors.grad is None or not anchors.grad.any(), "the anchor of the consistency loss learns"
    torch.testing.assert_close(states.grad, 2 / 8 * (states - anchors).detach() * shares[:, None])
