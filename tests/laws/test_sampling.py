"""Sampling has exactly the base's distribution: every outcome of every draw is enumerated on a tiny vocabulary."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import LOOKUP, PLAIN, Cost, Entry, Planner
from foresay.decoding.sampling import chooser as choose
from foresay.decoding.sampling.chooser import Drafts, Sampled
from foresay.decoding.sampling.logits_processors import Processing
from foresay.decoding.sampling.randomness import RandomNumbers, SeededNumbers
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_drawn, verify_sampled
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation
from foresay.models.config import HeadsConfig, MTPConfig
from foresay.models.drafting import DraftingModel
from foresay.models.heads.model import HeadsModel
from foresay.models.layout.tree import Tree
from foresay.models.masks.model import MaskModel
from tests.support.enumeration import Enumeration, enumerate_outcomes, remembering
from tests.support.layouts import ALL, DRAFTING, FIXED
from tests.support.toys import redraw

VOCABULARY = 3
TOKENS = 3
UNLIKE = "another chance than the base's of"
PROMPT = (2, 0, 1, 1)
COSTS = {Entry("plain"): Cost(1, 1), Entry("linear", 1): Cost(1.38, 1.1), Entry("quadratic", 2): Cost(1.5, 1.5)}
"""So close that what is accepted changes the layout from step to step."""


def tiny_llama(layers: int = 2) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).double()
    redraw(model, 3)
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def mtp() -> MaskModel:
    mtp = MaskModel.from_base(tiny_llama(), MTPConfig(num_masks=2, rank=2, lora_targets=("all",)))
    redraw(mtp.adapter, 4)
    mtp.adapter.double()
    return mtp


def wanted(
    mtp: DraftingModel, processors: Sequence[LogitsProcessor], tokens: int, prompt: tuple[int, ...] = PROMPT
) -> dict[tuple[int, ...], float]:
    """The base's own distribution over the next tokens, by its plain forward."""
    chances = {}
    for text in itertools.product(range(VOCABULARY), repeat=tokens):
        chance = 1.0
        for place, token in enumerate(text):
            ids = torch.tensor([[*prompt, *text[:place]]])
            scores = mtp.model(ids).logits[:, -1]
            for processor in processors:
                scores = processor(ids, scores)
            chance *= scores.softmax(-1)[0, token].item()
        chances[text] = chance
    return chances


def check_exact(
    mtp: DraftingModel,
    layout: LayoutName,
    processors: Sequence[LogitsProcessor] = (),
    greedy_drafts: bool = False,
    planner: Callable[[], Planner] = lambda: Planner(COSTS, AcceptanceEstimate((0.5, 0.4))),
    prompt: tuple[int, ...] = PROMPT,
    **settings: int,
) -> list[Generation]:
    # Two candidates of three: a tree with every token after a node would never be left.
    config = DecodeConfig(layout=layout, **({"max_new_tokens": TOKENS, "branches": 2, "nodes": 4} | settings))
    tokens = config.max_new_tokens
    accepted, generations = [], []

    def run(rng: Enumeration) -> tuple[int, ...]:
        chooser = Sampled(rng, Processing(tuple(processors)), greedy_drafts)
        how = GenerationHooks(chooser=lambda _: chooser, planner=planner() if layout == "planned" else None)
        [said] = generate(mtp, [prompt], config, how)
        generations.append(said)
        accepted.append(sum(step.accepted for step in said.steps))
        return tuple(said.tokens)

    with remembering(mtp):
        outcomes = enumerate_outcomes(run)
    assert sum(outcomes.values()) == pytest.approx(1, abs=1e-12)
    for text, chance in wanted(mtp, processors, tokens, prompt).items():
        assert outcomes.get(text, 0.0) == pytest.approx(chance, abs=1e-12), f"{UNLIKE} {text}"
    if layout != "plain" and prompt == PROMPT:
        assert min(accepted) < max(accepted) == tokens - 1
    return generations


PROCESSORS: dict[str, list[LogitsProcessor]] = {
    "temperature": [TemperatureLogitsWarper(0.7)],
    "top-k": [TopKLogitsWarper(2)],
    "top-p after temperature": [TemperatureLogitsWarper(1.5), TopPLogitsWarper(0.8)],
    "repetition penalty": [RepetitionPenaltyLogitsProcessor(1.7)],
    "no repeated bigrams": [NoRepeatNGramLogitsProcessor(3)],
}


@pytest.mark.parametrize("greedy_drafts", [False, True], ids=["drawn drafts", "greedy drafts"])
@pytest.mark.parametrize("layout", ALL)
def test_every_layout_has_the_bases_distribution(mtp: MaskModel, layout: LayoutName, greedy_drafts: bool) -> None:
    check_exact(mtp, layout, greedy_drafts=greedy_drafts)


@pytest.mark.parametrize("layout", ["quadratic", "tree"])
@pytest.mark.parametrize("variant", ["parallel", "causal", "anticausal", "linear"])
def test_heads_have_the_bases_distribution(variant: Any, layout: LayoutName) -> None:
    config = HeadsConfig(heads=3, variant=variant, replicated=variant == "causal")
    model = HeadsModel.from_base(tiny_llama(4 if variant == "anticausal" else 2), config)
    redraw(model.heads, 4)
    check_exact(model, layout, shortlist=2 if variant == "linear" else 0)


@pytest.mark.parametrize("layout", [*DRAFTING, "planned"])
def test_a_shortlist_leaves_the_distribution(mtp: MaskModel, layout: LayoutName) -> None:
    check_exact(mtp, layout, shortlist=2)


@pytest.mark.parametrize(("branches", "nodes"), [(2, 2), (2, 3), (2, 6), (3, 5)])
def test_every_shape_of_tree_has_the_bases_distribution(mtp: MaskModel, branches: int, nodes: int) -> None:
    check_exact(mtp, "tree", branches=branches, nodes=nodes)


@pytest.mark.parametrize("layout", ["quadratic", "tree"])
@pytest.mark.parametrize("processors", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_processors_act_as_in_plain_decoding(
    mtp: MaskModel, processors: list[LogitsProcessor], layout: LayoutName
) -> None:
    check_exact(mtp, layout, processors)


REPEATS = (0, 1, 2, 2, 1, 1, 0, 0, 2, 0, 1)
"""Every bigram, so that whatever is said first, something followed it before."""


@pytest.mark.parametrize("layout", [PLAIN, Entry("linear", 1), Entry("quadratic", 1)], ids=lambda entry: entry.label)
@pytest.mark.parametrize("greedy_drafts", [False, True], ids=["drawn drafts", "greedy drafts"])
def test_prompt_lookup_leaves_the_distribution(mtp: MaskModel, greedy_drafts: bool, layout: Entry) -> None:
    def looks_up() -> Planner:
        costs = {PLAIN: Cost(1 if layout == PLAIN else 9, 1), layout: Cost(1, 1), LOOKUP: Cost(1, 1)}
        return Planner(costs, AcceptanceEstimate((0.2, 0.1)))

    said = check_exact(mtp, "planned", (), greedy_drafts, planner=looks_up, prompt=REPEATS)
    assert {step.accepted for generation in said for step in generation.steps if step.looked_up} >= {0, 1}


def test_processors_act_on_what_was_looked_up(mtp: MaskModel) -> None:
    def looks_up() -> Planner:
        return Planner({PLAIN: Cost(1, 1), LOOKUP: Cost(1, 1)}, AcceptanceEstimate((0.2, 0.1)))

    for processors in PROCESSORS.values():
        said = check_exact(mtp, "planned", processors, planner=looks_up, prompt=REPEATS)
        assert any(step.looked_up for generation in said for step in generation.steps)


def test_a_lookup_that_is_kept_by_a_loaded_chance_is_caught(mtp: MaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts of certainty, judged as if they had been drawn from less."""
    replaced = Drafts.replaced

    def halved(self: Drafts, found: Sequence[Sequence[int]]) -> Drafts:
        drafts = replaced(self, found)
        return drafts if drafts.q is None else replace(drafts, q=drafts.q / 2)

    monkeypatch.setattr(Drafts, "replaced", halved)
    with pytest.raises(AssertionError):
        test_prompt_lookup_leaves_the_distribution(mtp, False, Entry("linear", 1))


class NeverTwice(LogitsProcessor):
    """No token twice in a row; a text where one stands so is none that plain decoding can come to."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = input_ids[0, len(PROMPT) - 1 :].tolist()
        assert all(one != other for one, other in itertools.pairwise(said)), said
        return scores.index_fill(1, input_ids[0, -1:], -torch.inf)


@pytest.mark.parametrize("layout", DRAFTING)
@pytest.mark.parametrize("greedy_drafts", [False, True], ids=["drawn drafts", "greedy drafts"])
def test_processors_see_possible_texts_only(mtp: MaskModel, layout: LayoutName, greedy_drafts: bool) -> None:
    config = DecodeConfig(layout=layout, branches=2, nodes=6, max_new_tokens=30)
    for seed in range(5):
        chooser = Sampled(SeededNumbers(seed, [0]), Processing((NeverTwice(),)), greedy_drafts)
        [said] = generate(mtp, [PROMPT], config, GenerationHooks(chooser=lambda _, own=chooser: own))
        assert len(said.tokens) == 30
        assert all(one != other for one, other in itertools.pairwise([PROMPT[-1], *said.tokens]))


Mutant = tuple[str, LayoutName, int, Callable[[Tensor, DraftsToVerify, RandomNumbers], Verification]]
"""Name, layout, tokens of the shortest answer in which it shows, and the broken verifier."""


def mutants() -> Iterator[Mutant]:
    def looks_at_the_draw(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
        # Verify a draft only if it was likely: what is verified then depends on what was drawn.
        first = -1 - asked.counts[0] if asked.counts[0] else -1
        if asked.counts[0] and asked.q[0, first + 1, asked.tokens[0, first + 1]] < 0.4:
            nothing = replace(
                asked, tokens=asked.tokens[:, :1], counts=(0,), tree=Tree(), q=asked.q[:, :0], placed=None
            )
            return verify_sampled(p[:, :1], nothing, rng)
        return verify_sampled(p, asked, rng)

    def no_residual(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
        verdict = verify_sampled(p, asked, rng)
        verdict.tokens[0, verdict.accepted[0]] = rng.pick(p[:, verdict.last], verdict.used[:, None])[0, 0]
        return verdict

    def always_kept(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
        return verify_sampled(p, replace(asked, q=torch.full_like(asked.q, 1e-300)), rng)

    def draws_among_the_drafts(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
        drafted = p.new_zeros(p.shape)
        for draft, parent in enumerate(asked.tree.parents, 1):
            drafted[0, parent, asked.tokens[0, draft]] = 1
        among = p * torch.where(drafted.any(dim=-1, keepdim=True), drafted, 1)
        return verify_drawn(among / among.sum(dim=-1, keepdim=True), asked, rng)

    def judges_behind_a_sibling(p: Tensor, asked: DraftsToVerify, rng: RandomNumbers) -> Verification:
        rows = list(range(p.shape[1]))
        if asked.tree.parents[:2] == (0, 0):
            rows[1], rows[2] = 2, 1
        return verify_drawn(p[:, rows], asked, rng)

    yield "looks at the draw", "quadratic", 2, looks_at_the_draw
    yield "no residual", "quadratic", 2, no_residual
    yield "always kept", "quadratic", 2, always_kept
    yield "draws among the drafts", "tree", 2, draws_among_the_drafts
    yield "judges after a sibling", "tree", 3, judges_behind_a_sibling


@pytest.mark.parametrize("mutant", list(mutants()), ids=lambda mutant: mutant[0])
def test_a_broken_verifier_is_caught(mtp: MaskModel, monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    _, layout, tokens, broken = mutant
    monkeypatch.setattr(choose, "verify_sampled" if layout == "quadratic" else "verify_drawn", broken)
    with pytest.raises(AssertionError, match=UNLIKE):
        check_exact(mtp, layout, max_new_tokens=tokens)


def test_processors_that_read_another_branch_are_caught(mtp: MaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = DraftsToVerify.prefixes

    def one_chain(self: DraftsToVerify) -> list[list[list[int]]]:
        return prefixes(replace(self, tree=Tree.chain(self.tree.drafts)))

    monkeypatch.setattr(DraftsToVerify, "prefixes", one_chain)
    with pytest.raises(AssertionError, match=UNLIKE):
        check_exact(mtp, "tree", PROCESSORS["no repeated bigrams"])


def sampled(seed: int) -> GenerationHooks:
    return GenerationHooks(chooser=lambda indices: Sampled(SeededNumbers(seed, indices)))


@pytest.mark.parametrize("layout", FIXED)
def test_a_seed_gives_the_same_text_at_any_batch_size(mtp: MaskModel, layout: LayoutName) -> None:
    config = DecodeConfig(layout=layout, max_new_tokens=20)
    prompts = [PROMPT, PROMPT[:2], (*PROMPT, 0, 2)]
    together = [generation.tokens for generation in generate(mtp, prompts, config, sampled(5))]
    alone = []
    for index, prompt in enumerate(prompts):
        session = Session(mtp, [prompt], config, Sampled(SeededNumbers(5, [index])))
        while session.live:
            session.step()
        alone.append(session.done[0].tokens)
    assert together == alone
    assert together != [generation.tokens for generation in generate(mtp, prompts, config, sampled(6))]


@pytest.mark.parametrize("layout", DRAFTING)
def test_with_drafts_that_are_not_drawn_a_seed_says_what_plain_decoding_says(
    mtp: MaskModel, layout: LayoutName
) -> None:
    prompts = [PROMPT, PROMPT[:2], (*PROMPT, 0, 2)]

    def said(layout: LayoutName) -> list[Generation]:
        how = GenerationHooks(chooser=lambda indices: Sampled(SeededNumbers(7, indices), greedy_drafts=True))
        return generate(mtp, prompts, DecodeConfig(layout=layout, max_new_tokens=30, branches=2, nodes=4), how)

    drafted = said(layout)
    assert [generation.tokens for generation in drafted] == [generation.tokens for generation in said("plain")]
    assert sum(step.accepted for generation in drafted for step in generation.steps) > 5
