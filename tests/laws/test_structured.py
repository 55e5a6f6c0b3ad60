"""Under a grammar, several tokens a step say what plain decoding under it says: greedy to the token, sampled too."""

import itertools
import json
import random
from collections.abc import Sequence

import pytest
import torch
from llguidance import LLMatcher

from foresay.decoding.answers import choosing
from foresay.decoding.config import DecodeConfig, LayoutName, PenaltyConfig, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import Planner
from foresay.decoding.requests import Request
from foresay.decoding.sampling.chooser import Sampled
from foresay.decoding.sampling.grammar import Grammar
from foresay.decoding.sampling.logits_processors import Processing
from foresay.decoding.sampling.per_request import Limits
from foresay.decoding.steps import Generation
from foresay.foundation.errors import PromptError
from foresay.models.base.model import Base
from foresay.models.masks.model import MaskModel
from tests.laws.test_sampling import COSTS, PROMPT, mtp
from tests.support.enumeration import Enumeration, enumerate_outcomes, remembering
from tests.support.grammars import STOP, grammar, mask_after, plain, words_of
from tests.support.layouts import ALL, DRAFTING
from tests.support.toys import GEMMA2, GPT2, LLAMA, MISTRAL_WINDOW, VOCABULARY, Toy, adapted, pristine, random_prompts

__all__ = ["mtp"]

WORDS = words_of(VOCABULARY)
MOST = 40
GREEDY = SampleConfig()


def json_schema(schema: dict[str, object]) -> str:
    return str(
        LLMatcher.grammar_from_json_schema(
            {"additionalProperties": False, **schema}, overrides={"whitespace_flexible": False}
        )
    )


TEXTS = {
    "object": json_schema(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 6},
                "old": {"type": "boolean"},
                "tags": {"type": "array", "items": {"enum": ["the", "in", "an", "abba"]}, "minItems": 2, "maxItems": 3},
            },
            "required": ["name", "old", "tags"],
        }
    ),
    "regex": LLMatcher.grammar_from_regex(r"[a-z]{2,5}( (the|ab+a|in[dt]?|12[0-9]{2,3}))+\."),
    "choice": LLMatcher.grammar_from_lark('start: "the inn" | "ab initio" | "an ab" | "tru" | "true"'),
    "nested": LLMatcher.grammar_from_lark(
        'start: pair\npair: "(" (pair | WORD) ", " (pair | WORD) ")"\nWORD: /[a-z]{1,3}/'
    ),
}
GRAMMARS = {name: grammar(text, WORDS) for name, text in TEXTS.items()}


@pytest.fixture(autouse=True)
def _ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Base, "stop_tokens", property(lambda self: (STOP,)))


def decoded(
    mtp: MaskModel,
    grammar: Grammar,
    layout: LayoutName,
    sample: SampleConfig = GREEDY,
    lengths: Sequence[int] = (5, 9, 2),
    most: int = MOST,
) -> tuple[list[tuple[int, ...]], list[Generation]]:
    prompts = random_prompts(lengths, seed=4)
    config = DecodeConfig(layout=layout, masks=3, branches=2, nodes=7, max_new_tokens=most)
    how = GenerationHooks(choosing(sample, PenaltyConfig(), prompts, Limits(grammar)))
    return prompts, generate(mtp, prompts, config, how)


@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize("name", GRAMMARS)
def test_greedy_is_plain_decoding_under_the_grammar(name: str, layout: LayoutName) -> None:
    prompts, said = decoded(adapted(LLAMA), GRAMMARS[name], layout)
    for prompt, own in zip(prompts, said):
        assert own.tokens == plain(pristine(LLAMA), prompt, GRAMMARS[name], MOST)
    assert len({tuple(own.tokens) for own in said}) > 1 or name == "choice"
    if layout in DRAFTING and name in ("object", "choice"):
        assert sum(step.accepted for own in said for step in own.steps) > 0, "what must come is a draft"


@pytest.mark.parametrize("toy", [GPT2, GEMMA2, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_every_architecture_keeps_to_it(toy: Toy) -> None:
    for name, own in GRAMMARS.items():
        prompts, said = decoded(adapted(toy), own, "quadratic", lengths=(7, 3))
        assert [some.tokens for some in said] == [plain(pristine(toy), p, own, MOST) for p in prompts], name


def test_what_ends_is_whole() -> None:
    _, said = decoded(
        adapted(LLAMA), GRAMMARS["object"], "quadratic", SampleConfig(temperature=1.0, seed=1), [4] * 8, 90
    )
    ended = ["".join(WORDS[token] for token in own.tokens[:-1]) for own in said if own.ended == "stop"]
    assert len(ended) > 3
    for text in ended:
        assert set(json.loads(text)) == {"name", "old", "tags"}


@pytest.mark.parametrize("layout", ALL)
def test_sampled_with_a_seed_is_plain_decoding_too(layout: LayoutName) -> None:
    sample = SampleConfig(temperature=1.2, top_k=20, seed=3)
    said = [decoded(adapted(LLAMA), GRAMMARS["regex"], some, sample)[1] for some in ("plain", layout)]
    assert [own.tokens for own in said[0]] == [own.tokens for own in said[1]]


SMALL = {"ends soon or late": r"a(ba)*|b?a+", "never says b twice": r"(ba?|a)(a|ab)*", "anything": r"[ab]*"}


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn drafts", "best drafts"])
@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize("regex", SMALL.values(), ids=SMALL.keys())
def test_sampling_has_the_distribution_under_the_grammar(
    mtp: MaskModel, regex: str, layout: LayoutName, drawn: bool
) -> None:
    own, tokens = grammar(LLMatcher.grammar_from_regex(regex), ("<end>", "a", "b")), 4
    config = DecodeConfig(layout=layout, branches=2, nodes=4, max_new_tokens=tokens)

    def run(rng: Enumeration) -> tuple[int, ...]:
        chooser = Sampled(rng, Processing((own.constraint(len(PROMPT)),)), not drawn)
        planner = Planner(COSTS, AcceptanceEstimate((0.5, 0.4))) if layout == "planned" else None
        how = GenerationHooks(chooser=lambda _: chooser, planner=planner, stop_tokens=frozenset([STOP]))
        return tuple(generate(mtp, [PROMPT], config, how)[0].tokens)

    with remembering(mtp):
        outcomes = enumerate_outcomes(run)
    expected = chances_under(mtp, own, tokens)
    assert outcomes.keys() == expected.keys()
    for text, chance in expected.items():
        assert outcomes[text] == pytest.approx(chance, abs=1e-12), text


@torch.no_grad()
def chances_under(mtp: MaskModel, grammar: Grammar, tokens: int) -> dict[tuple[int, ...], float]:
    """The base's own distribution over answers under the grammar, by its plain forward."""
    chances: dict[tuple[int, ...], float] = {}
    open_ends = {(): 1.0}
    for _ in range(tokens):
        going: dict[tuple[int, ...], float] = {}
        for text, chance in open_ends.items():
            scores = mtp.model(torch.tensor([[*PROMPT, *text]])).logits[0, -1]
            after = scores.masked_fill(~mask_after(grammar, text), -torch.inf).softmax(-1).tolist()
            for token, own in enumerate(after):
                if own:
                    (chances if token == STOP else going)[(*text, token)] = chance * own
        open_ends = going
    return chances | open_ends


@pytest.mark.parametrize("layout", ALL)
def test_requests_with_and_without_grammars_share_steps(layout: LayoutName) -> None:
    mtp, schedule = adapted(LLAMA), random.Random(2)
    prompts = random_prompts([5, 1, 9, 4, 12, 3, 7, 2], 5)
    grammars = [*GRAMMARS.values(), None]
    chosen = [schedule.choice(grammars) for _ in prompts]
    config = DecodeConfig(layout=layout, masks=3, branches=2, nodes=7)
    engine = Engine.open(mtp, config, QueueConfig(sequences=3, prefix_cache=1))
    tickets = engine.submit([Request(p, MOST, limits=Limits(own)) for p, own in zip(prompts, chosen)])
    said: dict[int, list[int]] = {ticket: [] for ticket in tickets}
    while engine.busy:
        for told in engine.step():
            said[told.ticket] += told.step.tokens
            assert not told.failure
    anything = grammar(LLMatcher.grammar_from_regex(r"(.|\n)*"), WORDS)
    for prompt, own, ticket in zip(prompts, chosen, tickets):
        if own is not None:
            assert said[ticket] == plain(pristine(LLAMA), prompt, own, MOST)
        else:
            assert mask_after(anything, said[ticket]).any()


def test_a_grammar_that_no_token_fits_fails_its_own_request() -> None:
    mtp = adapted(LLAMA)
    # The words have no @: the text may begin, and then nothing may come.
    dead = grammar(LLMatcher.grammar_from_regex(r"[a-z]{2}@"), WORDS)
    prompts = random_prompts([5, 7], 5)
    engine = Engine.open(mtp, DecodeConfig(layout="quadratic", masks=3), QueueConfig(sequences=3))
    failing, other = engine.submit(
        [Request(prompts[0], MOST, limits=Limits(dead)), Request(prompts[1], MOST, limits=Limits(GRAMMARS["regex"]))]
    )
    ends, said = {}, []
    while engine.busy:
        for told in engine.step():
            said += told.step.tokens if told.ticket == other else []
            if told.ended:
                ends[told.ticket] = (told.ended, told.failure)
    assert ends[failing][0] == "error"
    assert (
        "after 2 tokens the grammar allows none that this model has" in ends[failing][1]
        or "after 1" in ends[failing][1]
    )
    assert not ends[other][1]
    assert said == plain(pristine(LLAMA), prompts[1], GRAMMARS["regex"], MOST)
    rules = choosing(GREEDY, PenaltyConfig(), prompts[:1], Limits(dead))
    [own] = generate(mtp, prompts[:1], DecodeConfig(layout="plain"), GenerationHooks(rules))
    with pytest.raises(PromptError, match=r"the grammar allows none that this model has .*; loosen the grammar"):
        rules.check([own])


def test_masks_do_not_depend_on_the_order_of_asking() -> None:
    own, shuffle = GRAMMARS["object"], random.Random(0)
    texts: list[list[int]] = [[]]
    for _ in range(25):
        allowed = mask_after(own, texts[-1]).nonzero().flatten().tolist()
        texts.append([*texts[-1], shuffle.choice([token for token in allowed if token != STOP] or [STOP])])
        if texts[-1][-1] == STOP:
            break
    constraint = own.constraint(0)
    for text in shuffle.choices(texts[:-1], k=60):
        assert torch.equal(constraint.allowed(text), mask_after(own, text))
    for one, other in itertools.pairwise(shuffle.choices(texts, k=20)):
        assert constraint.failure(one) == constraint.failure(other) == ""
