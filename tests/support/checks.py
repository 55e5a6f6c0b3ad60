"""The laws as plain functions, called by the tests (must pass) and by the mutants (must raise AssertionError)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.decoding.planning.draft_tree import tree_for
from foresay.decoding.sampling.chooser import Drafter, Greedy
from foresay.decoding.sampling.draft import Blocks, draft_greedy
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation
from foresay.models.layout.tree import Tree
from foresay.models.masks.model import MaskModel
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

    def __call__(self, model: MaskModel, blocks: Blocks) -> Tensor:
        assert self.session is not None
        states, newest, tree = blocks.states, blocks.newest, blocks.tree.within(blocks.states.shape[1])
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
