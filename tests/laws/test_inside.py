"""Inside transformers: the same arguments give what transformers' own `generate` gives, to the token."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.logits_process import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper
from transformers.generation.stopping_criteria import MaxLengthCriteria, StoppingCriteria, StopStringCriteria

from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.model import MultiTokenModel
from foresay.models.config import DType
from tests.support.layouts import FIXED
from tests.support.toys import GEMMA2, GPT2, LLAMA, QWEN3_MOE, Toy, random_prompts, with_adapter

LENGTHS = (5, 9, 2)
NEW = 30
ENDS = [28, 56, 22]
"""Stop tokens that end each of the prompts on `LLAMA` somewhere on the way; the first is not the least."""


def front_door(toy: Toy) -> MultiTokenModel:
    model = MultiTokenModel(with_adapter(toy.model(), masks=3), None, "toy")
    model.base.model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="module")
def llama() -> MultiTokenModel:
    return front_door(LLAMA)


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano", dtype="float32")


def batch(side: str = "left") -> dict[str, Tensor]:
    """Ragged prompts, padded on one side, with a token that `LLAMA` likes to say: whoever counts padding shows it."""
    longest = max(LENGTHS)
    rows, masks = [], []
    for prompt in random_prompts(LENGTHS):
        pads, seen = [61] * (longest - len(prompt)), [1] * len(prompt)
        hidden = [0] * len(pads)
        rows.append([*pads, *prompt] if side == "left" else [*prompt, *pads])
        masks.append([*hidden, *seen] if side == "left" else [*seen, *hidden])
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def continuations(text: Tensor) -> Tensor:
    return text[:, max(LENGTHS) :]


def own(model: MultiTokenModel, **arguments: Any) -> Any:
    """What the base says by transformers alone."""
    model.detach_hooks()
    return model.base.model.generate(**arguments)


# Arguments.


def by_row(row: int, ids: Tensor) -> list[int]:
    """Row r says tokens that are r modulo 3, another third after an even one."""
    return list(range((row + int(ids[-1]) % 2) % 3, 96, 3))


GREEDY = {"do_sample": False, "max_new_tokens": NEW}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no cache": {"use_cache": False},
    "repetition penalty": {"repetition_penalty": 1.5},
    "no repeated bigrams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[5], [7, 9]]},
    "sequence bias": {"sequence_bias": [[[11], 4.0], [[3, 4], -9.0]]},
    "suppressed tokens": {"suppress_tokens": list(range(0, 96, 3))},
    "suppressed at the start": {"begin_suppress_tokens": list(range(0, 96, 2))},
    "a list of stops": {"eos_token_id": ENDS},
    "a list of stops and no padding token": {"eos_token_id": ENDS, "pad_token_id": None},
    "fewest new tokens": {"min_new_tokens": 20, "eos_token_id": ENDS},
    "fewest tokens": {"min_length": 15, "eos_token_id": ENDS},
    "a forced end": {"forced_eos_token_id": 95, "eos_token_id": ENDS},
    "ends grow likelier": {"exponential_decay_length_penalty": (4, 1.3), "eos_token_id": ENDS},
    "max length": {"max_length": 20, "max_new_tokens": None},
    "a user's max length": {"stopping_criteria": [MaxLengthCriteria(14)]},
    "no time": {"max_time": 1e-9},
    "allowed tokens": {"prefix_allowed_tokens_fn": by_row},
    "watermark": {"watermarking_config": {"bias": 3.0, "seeding_scheme": "selfhash"}},
    "processors of both kinds": {"repetition_penalty": 1.5, "suppress_tokens": [1, 2, 3], "renormalize_logits": True},
}


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_the_same_arguments_give_the_same_tokens(
    llama: MultiTokenModel, arguments: dict[str, Any], layout: LayoutName
) -> None:
    settings = GREEDY | arguments
    expected = own(llama, **batch(), **settings)
    assert torch.equal(llama.generate(**batch(), layout=layout, **settings), expected)
    bridge = llama.bridge(DecodeConfig(layout=layout))
    assert torch.equal(llama.base.model.generate(**batch(), custom_generate=bridge, **settings), expected)
    if layout == "quadratic":
        assert torch.equal(llama.base.model.generate(**batch(), custom_generate=llama, **settings), expected)


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_padding_on_either_side_is_the_same_request(llama: MultiTokenModel, arguments: dict[str, Any]) -> None:
    left, right = (llama.generate(**batch(side), **GREEDY | arguments) for side in ("left", "right"))
    assert torch.equal(continuations(left), continuations(right))


@pytest.mark.parametrize("toy", [GPT2, GEMMA2, QWEN3_MOE], ids=lambda toy: toy.name)
def test_other_architectures(toy: Toy) -> None:
    model = front_door(toy)
    for name in ("plain", "repetition penalty", "fewest new tokens"):
        settings = GREEDY | ARGUMENTS[name]
        expected = own(model, **batch(), **settings)
        assert torch.equal(model.generate(**batch(), **settings), expected)
        assert torch.equal(model.base.model.generate(**batch(), custom_generate=model, **settings), expected)


@pytest.mark.uses_deprecated  # a config and arguments together
def test_a_generation_config_goes_first_and_arguments_go_before_it(llama: MultiTokenModel) -> None:
    config = GenerationConfig(max_new_tokens=12, repetition_penalty=1.4, eos_token_id=ENDS, do_sample=False)
    expected = own(llama, **batch(), generation_config=config)
    assert torch.equal(llama.generate(**batch(), generation_config=config), expected)
    assert torch.equal(llama.generate(batch()["input_ids"], config, attention_mask=batch()["attention_mask"]), expected)
    changes = {"max_new_tokens": 7, "repetition_penalty": 1.0}
    mixed = own(llama, **batch(), generation_config=config, **changes)
    ours = llama.generate(**batch(), generation_config=config, **changes)
    assert torch.equal(ours, mixed)
    assert not torch.equal(ours, expected[:, : ours.shape[1]])
    assert config.max_new_tokens == 12


def test_a_config_of_ours_may_ignore_stops(llama: MultiTokenModel) -> None:
    expected = own(llama, **batch(), **GREEDY)
    stops = {"eos_token_id": expected[:, max(LENGTHS) + 3].tolist()}
    assert llama.generate(**batch(), **GREEDY, **stops).shape[1] == max(LENGTHS) + 4
    assert torch.equal(llama.generate(**batch(), **GREEDY, **stops, ignore_stop=True), expected)


@pytest.mark.parametrize("arguments", [{}, {"repetition_penalty": 1.3}, {"min_new_tokens": 40}, {"max_length": 70}])
def test_the_embedded_model(nano: MultiTokenModel, arguments: dict[str, Any]) -> None:
    prompts = ["Once upon a time", "A robe takes 2 bolts of blue fiber and half that much white fiber. How many?"]
    inputs = texts(nano, prompts)
    settings = {"do_sample": False} | (arguments if "max_length" in arguments else {"max_new_tokens": 48} | arguments)
    expected = own(nano, **inputs, **settings)
    for layout in FIXED:
        assert torch.equal(nano.generate(**inputs, layout=layout, **settings), expected), layout
        bridge = nano.bridge(DecodeConfig(layout=layout, masks=4))
        assert torch.equal(nano.base.model.generate(**inputs, custom_generate=bridge, **settings), expected), layout


def texts(model: MultiTokenModel, prompts: list[str]) -> dict[str, Tensor]:
    tokenizer = model.require_tokenizer()
    padded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    return {"input_ids": padded.input_ids, "attention_mask": padded.attention_mask}


# Stops.


class Even(LogitsProcessor):
    """Even tokens after odd ones."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        odd = (input_ids[:, -1] % 2 == 1)[:, None]
        return scores.masked_fill(odd & (torch.arange(scores.shape[-1]) % 2 == 1), -torch.inf)


@dataclass(frozen=True)
class Sum(StoppingCriteria):
    """Ends when the new tokens of a row sum up, counted after the padded prompt, as users do."""

    prompt: int = max(LENGTHS)
    most: int = 400

    def __call__(self, input_ids: Tensor, scores: Any, **rest: Any) -> Tensor:
        return input_ids[:, self.prompt :].sum(dim=1) > self.most


@dataclass(frozen=True)
class Sure(StoppingCriteria):
    """Ends, not before the fourth token, at one that the base was sure of."""

    prompt: int = max(LENGTHS)
    least: float = 0.125

    def __call__(self, input_ids: Tensor, scores: Any, **rest: Any) -> Tensor:
        assert len(scores) == input_ids.shape[1] - self.prompt
        late = torch.full((len(input_ids),), len(scores) > 3)
        return late & (scores[-1].softmax(dim=-1).amax(dim=-1) > self.least)


def seventh(ids: Tensor, scores: Any, **rest: Any) -> Tensor:
    return ids[:, -1] % 7 == 0


# Without any stop token transformers goes on after a criterion until the whole batch has met it; with one it pads.
CRITERIA: dict[str, dict[str, Any]] = {
    "a function": {"stopping_criteria": [seventh]},
    "counting after the prompt": {"stopping_criteria": [Sum()]},
    "by scores": {"stopping_criteria": [Sure()], "output_scores": True, "return_dict_in_generate": True},
    "two, and a processor": {"stopping_criteria": [seventh, Sum()], "logits_processor": [Even()]},
}


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("arguments", CRITERIA.values(), ids=CRITERIA.keys())
def test_a_users_criteria(llama: MultiTokenModel, arguments: dict[str, Any], layout: LayoutName) -> None:
    settings = {**GREEDY, "eos_token_id": 95, **arguments}
    expected, ours = own(llama, **batch(), **settings), llama.generate(**batch(), layout=layout, **settings)
    expected, ours = (text if isinstance(text, Tensor) else text.sequences for text in (expected, ours))
    assert torch.equal(ours, expected)
    assert ours.shape[1] < max(LENGTHS) + NEW


def test_a_criterion_that_answers_for_all_rows(llama: MultiTokenModel) -> None:
    def long(ids: Tensor, scores: Any, **rest: Any) -> bool:
        return ids.shape[1] >= 15

    assert llama.generate(**batch(), **GREEDY, stopping_criteria=[long]).shape == (3, 15)


@pytest.mark.parametrize("layout", FIXED)
def test_time_ends_a_text_where_it_ends_transformers(
    llama: MultiTokenModel, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by a second each time somebody looks."""
    ids = torch.tensor(random_prompts((6,)))

    def said(run: Callable[..., Tensor], **more: Any) -> Tensor:
        with monkeypatch.context() as patch:
            seconds = iter(range(1000))
            patch.setattr("transformers.generation.stopping_criteria.time.time", lambda: float(next(seconds)))
            return run(inputs=ids, **GREEDY, max_time=7.5, **more)

    expected = said(llama.base.model.generate)
    assert expected.shape == (1, 6 + 8)
    assert torch.equal(said(llama.generate, layout=layout), expected)


STORY = "Once upon a time there was a little dog named"
STOPS: list[str | list[str]] = [[" mom", "instance("], ["loved to pl", "return b"], " b", "e"]


@pytest.mark.uses_deprecated  # ours: `with_stop_strings` passes an argument beside a config
@pytest.mark.parametrize("strings", STOPS, ids=str)
def test_a_stop_string_cuts_exactly_there(nano: MultiTokenModel, strings: str | list[str]) -> None:
    tokenizer = nano.require_tokenizer()
    inputs = texts(nano, [STORY, "def add(a, b):"])
    settings = {"do_sample": False, "max_new_tokens": 48}
    expected = own(nano, **inputs, **settings, stop_strings=strings, tokenizer=tokenizer)
    assert expected.shape[1] < inputs["input_ids"].shape[1] + 48
    config = GenerationConfig(**settings, stop_strings=strings, eos_token_id=0)
    criteria = [StopStringCriteria(tokenizer, strings)]
    for layout in FIXED:
        bridge = nano.bridge(DecodeConfig(layout=layout))
        for said in (
            nano.generate(**inputs, **settings, layout=layout, stop_strings=strings),
            nano.generate(**inputs, **settings, layout=layout, stop_strings=strings, tokenizer=tokenizer),
            nano.generate(**inputs, layout=layout, generation_config=config),
            nano.base.model.generate(**inputs, **settings, stopping_criteria=criteria, custom_generate=bridge),
        ):
            assert torch.equal(said, expected), layout


def test_stop_strings_of_the_base_count_until_taken_back(
    nano: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, settings = texts(nano, ["Once upon a time"]), {"do_sample": False, "max_new_tokens": 32}
    whole = nano.generate(**inputs, **settings)
    monkeypatch.setattr(nano.base.model.generation_config, "stop_strings", [" a"])
    cut = nano.generate(**inputs, **settings)
    assert torch.equal(cut, own(nano, **inputs, **settings, tokenizer=nano.require_tokenizer()))
    assert cut.shape[1] < whole.shape[1]
    assert torch.equal(nano.generate(**inputs, **settings, stop_strings=None), whole)


def test_some_of_these_stops_fall_inside_accepted_runs(nano: MultiTokenModel) -> None:
    inputs = texts(nano, [STORY])
    ends = run_ends(nano, inputs["input_ids"][0].tolist())
    cuts = [
        own(nano, **inputs, do_sample=False, max_new_tokens=48, stop_strings=s, tokenizer=nano.tokenizer).shape[1]
        for s in STOPS
    ]
    assert any(cut - inputs["input_ids"].shape[1] not in ends for cut in cuts)


def run_ends(model: MultiTokenModel, prompt: list[int]) -> set[int]:
    """Lengths of the answer after each step, where nothing stops it."""
    [free] = model.decode([prompt], DecodeConfig(layout="quadratic", max_new_tokens=48))
    return {sum(len(step.tokens) for step in free.steps[:number]) for number in range(len(free.steps) + 1)}


def test_nobody_is_shown_a_text_that_plain_decoding_would_not_come_to(llama: MultiTokenModel) -> None:
    shown: list[list[int]] = []

    class Watching(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            shown.extend(input_ids.tolist())
            return scores

    arguments = GREEDY | {"input_ids": torch.tensor(random_prompts((6,))), "logits_processor": [Watching()]}
    own(llama, **arguments)
    plain = list(shown)
    for layout in FIXED:
        shown.clear()
        llama.generate(**arguments, layout=layout)
        assert shown == plain, layout


# Scores.

ASKED: dict[str, dict[str, Any]] = {
    "alone": {},
    "with processors": {"repetition_penalty": 1.5, "suppress_tokens": [4, 5]},
    "with stops": {"eos_token_id": ENDS},
    "with a criterion": {"stopping_criteria": [Sum()], "eos_token_id": 95},
}


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("arguments", ASKED.values(), ids=ASKED.keys())
def test_scores_and_logits_are_transformers(
    llama: MultiTokenModel, arguments: dict[str, Any], layout: LayoutName
) -> None:
    finished = check_scores(llama, batch(), GREEDY | arguments, layout)
    assert finished.any() == ("eos_token_id" in arguments)


@pytest.mark.parametrize("layout", FIXED)
def test_scores_of_accepted_runs(nano: MultiTokenModel, layout: LayoutName) -> None:
    """Several tokens a step, and a sequence cut inside a run by a criterion that looks at the scores."""
    inputs = texts(nano, [STORY, "def add(a, b):"])
    settings = {"do_sample": False, "max_new_tokens": 30}
    sure = Sure(inputs["input_ids"].shape[1], 0.95)
    finished = check_scores(nano, inputs, settings | {"stopping_criteria": [sure]}, layout)
    assert finished.any()
    assert int((~finished[0]).sum()) not in run_ends(nano, inputs["input_ids"][0].tolist())
    check_scores(nano, inputs, settings | {"repetition_penalty": 1.05}, layout)


def check_scores(
    model: MultiTokenModel, inputs: dict[str, Tensor], settings: dict[str, Any], layout: LayoutName
) -> Tensor:
    """Rows of tokens as transformers has them, certain of the padding after the end; which are after it, (B, L)."""
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    expected = own(model, **inputs, **settings, **asked)
    ours = model.generate(**inputs, layout=layout, **settings, **asked)
    assert torch.equal(ours.sequences, expected.sequences)
    said = ours.sequences[:, inputs["input_ids"].shape[1] :]
    scores, logits = torch.stack(ours.scores, dim=1), torch.stack(ours.logits, dim=1)
    pad = model.base.model.generation_config.pad_token_id
    finished = scores[:, :, pad] == scores.logsumexp(dim=-1)
    for mine, theirs in ((scores, expected.scores), (logits, expected.logits)):
        assert (mine.shape, mine.dtype) == ((*said.shape, model.base.vocabulary), torch.float32)
        torch.testing.assert_close(mine[~finished], torch.stack(theirs, dim=1)[~finished], rtol=0, atol=1e-4)
        assert (mine[finished].softmax(dim=-1)[:, pad] == 1).all()
    assert torch.equal(scores.argmax(dim=-1), said)
    # Finished after the end and nowhere else: in one piece, and never at a token that is no padding.
    assert torch.equal(finished, finished.long().cummax(dim=1).values.bool())
    assert (said[finished] == pad).all()
    chances = model.base.model.compute_transition_scores(ours.sequences, ours.scores, normalize_logits=True)
    assert (chances[finished] == 0).all()
    assert (chances[~finished] < 0).all()
    return finished


def test_only_what_was_asked_for_is_returned(llama: MultiTokenModel) -> None:
    text = llama.generate(**batch(), **GREEDY)
    bare = llama.generate(**batch(), **GREEDY, return_dict_in_generate=True)
    assert torch.equal(bare.sequences, text)
    assert bare.scores is bare.logits is None
    some = llama.generate(**batch(), **GREEDY, return_dict_in_generate=True, output_logits=True)
    assert some.scores is None
    assert len(some.logits) == NEW
    assert torch.equal(llama.generate(**batch(), **GREEDY, output_scores=True), text)


# Sampling.


@pytest.mark.parametrize("layout", FIXED)
def test_sampled_tokens_are_drawn_from_transformers_scores(llama: MultiTokenModel, layout: LayoutName) -> None:
    """Scores of sampled tokens are the base's own after that text, through the warpers; top_k is 50 unless told."""
    torch.manual_seed(3)
    asked = {"return_dict_in_generate": True, "output_scores": True}
    said = llama.generate(**batch(), do_sample=True, temperature=3.0, max_new_tokens=16, layout=layout, **asked)
    mask = torch.cat((batch()["attention_mask"], torch.ones(3, 16, dtype=torch.int64)), dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    llama.detach_hooks()
    with torch.no_grad():
        logits = llama.base.model(said.sequences, attention_mask=mask, position_ids=positions).logits
    for place, scores in enumerate(said.scores):
        expected = logits[:, max(LENGTHS) + place - 1]
        for warper in (TemperatureLogitsWarper(3.0), TopKLogitsWarper(50)):
            expected = warper(said.sequences, expected)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
        assert (scores > -torch.inf).sum(dim=-1).tolist() == [50] * 3
        assert (scores.gather(1, continuations(said.sequences)[:, place, None]) > -torch.inf).all()


def test_the_bases_own_config_says_how_to_sample(llama: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = llama.base.model.generation_config
    for name, value in {"do_sample": True, "temperature": 2.0, "top_k": 4}.items():
        monkeypatch.setattr(config, name, value)
    said = llama.generate(**batch(), max_new_tokens=8, return_dict_in_generate=True, output_scores=True)
    assert [(scores > -torch.inf).sum(dim=-1).tolist() for scores in said.scores] == [[4, 4, 4]] * 8
    assert torch.equal(llama.generate(**batch(), **GREEDY), own(llama, **batch(), **GREEDY))


def test_sampling_repeats_with_the_seed_and_counts_sequences(llama: MultiTokenModel) -> None:
    settings = {"do_sample": True, "temperature": 0.7, "max_new_tokens": 12, "num_return_sequences": 3}
    said = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        said.append(llama.generate(**batch(), **settings))
    assert said[0].shape == (9, max(LENGTHS) + 12)
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])
    assert not torch.equal(said[0][0], said[0][1])


def test_rows_of_several_sequences_keep_their_numbers(llama: MultiTokenModel) -> None:
    """A sampled batch of three times two rows, each held to the tokens of its own number."""
    settings = {"do_sample": True, "max_new_tokens": 12, "num_return_sequences": 2, "top_k": 0}
    said = continuations(
        llama.generate(**batch(), **settings, prefix_allowed_tokens_fn=lambda row, ids: list(range(row, 96, 6)))
    )
    assert torch.equal(said % 6, torch.arange(6)[:, None].expand_as(said))


# Precision.


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("toy", [LLAMA, GPT2, GEMMA2], ids=lambda toy: toy.name)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_differs_by_ties_only(dtype: DType, toy: Toy, layout: LayoutName) -> None:
    """Many rows round otherwise than one: where a text leaves transformers', two tokens are as good as each other."""
    base = toy.model().to(getattr(torch, dtype))
    model = MultiTokenModel(with_adapter(base, masks=3), None, "toy")
    base.generation_config.pad_token_id = 0
    expected, ours = own(model, **batch(), **GREEDY), model.generate(**batch(), **GREEDY, layout=layout)
    assert ours.shape == expected.shape
    same = [agreement(base, *rows) for rows in zip(expected, ours, batch()["attention_mask"])]
    assert sum(same) >= NEW


def agreement(base: PreTrainedModel, expected: Tensor, ours: Tensor, mask: Tensor) -> int:
    """Tokens in common; where they end, the base must be of two minds."""
    unequal = (expected != ours).nonzero()
    if not len(unequal):
        return len(ours) - max(LENGTHS)
    first = int(unequal[0])
    with torch.no_grad():
        text = ours[:first][int((mask == 0).sum()) :]
        logits = base(text[None]).logits[0, -1].float()
    apart = (logits[expected[first]] - logits[ours[first]]).abs()
    assert apart <= 32 * torch.finfo(base.dtype).eps * logits.abs().max(), f"no tie at {first}: {apart} apart"
    return first - max(LENGTHS)


def test_scores_of_a_half_precision_base_are_float32() -> None:
    base = LLAMA.model().bfloat16()
    model = MultiTokenModel(with_adapter(base, masks=3), None, "toy")
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    said = model.generate(torch.tensor(random_prompts((4,))), **GREEDY, **asked)
    assert {row.dtype for row in (*said.scores, *said.logits)} == {torch.float32}
    assert torch.stack(said.scores).argmax(dim=-1)[:, 0].tolist() == said.sequences[0, 4:].tolist()
