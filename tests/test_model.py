"""The front door: `generate` as transformers has it, and refusals that leave the model usable."""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from foresay.decoding.config import DecodeConfig, LayoutName, SampleConfig
from foresay.foundation.errors import ConfigError, ForesayError, PromptError, UnsupportedBase
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from foresay.models.masks.gate import Gate
from tests.support.toys import GPT2, LLAMA, Toy, own_output, pristine, random_prompts, with_adapter

LENGTHS = (5, 9, 2)
MASKS = 4
NEW = 24


def front_door(toy: Toy) -> MultiTokenModel:
    return MultiTokenModel(with_adapter(toy.model(), masks=MASKS), None, "toy")


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    """Nobody changes it."""
    return front_door(LLAMA)


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A ragged batch of prompts and its attention mask."""
    longest = max(LENGTHS)
    rows, masks = [], []
    for prompt in random_prompts(LENGTHS):
        pads = [0] * (longest - len(prompt))
        rows.append([*pads, *prompt] if side == "left" else [*prompt, *pads])
        seen = [1] * len(prompt)
        masks.append([*pads, *seen] if side == "left" else [*seen, *pads])
    return torch.tensor(rows), torch.tensor(masks)


def late_stop(toy: Toy) -> int:
    """A stop token that ends some prompts of the batch, not all, and none at once."""
    outputs = [own_output(toy, prompt, len(prompt) + NEW) for prompt in random_prompts(LENGTHS)]
    stops = (t for t in range(96) if 0 < sum(t in output for output in outputs) < len(outputs))
    return next(stop for stop in stops if all(stop not in output[:3] for output in outputs))


def transformers_generate(toy: Toy, ids: torch.Tensor, mask: torch.Tensor, stop: int | None) -> torch.Tensor:
    settings = {"do_sample": False, "max_new_tokens": NEW, "eos_token_id": stop, "pad_token_id": 0}
    text: torch.Tensor = pristine(toy).generate(ids, attention_mask=mask, **settings)
    return text


# What transformers returns.


@pytest.mark.parametrize("stopping", [False, True], ids=["to the end", "stopping"])
@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
@pytest.mark.parametrize("toy", [LLAMA, GPT2], ids=lambda toy: toy.name)
def test_generate_returns_what_transformers_returns(toy: Toy, layout: LayoutName, stopping: bool) -> None:
    model, stop = front_door(toy), late_stop(toy) if stopping else None
    model.base.model.generation_config.eos_token_id = stop
    model.base.model.generation_config.pad_token_id = 0
    ids, mask = padded("left")
    ours = model.generate(ids, attention_mask=mask, layout=layout, max_new_tokens=NEW)
    assert torch.equal(ours, transformers_generate(toy, ids, mask, stop))
    assert ours.dtype == ids.dtype
    if stopping:
        assert (ours[:, ids.shape[1] :] == stop).any()


@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
def test_padding_behind_is_not_part_of_the_prompt(model: MultiTokenModel, layout: LayoutName) -> None:
    ids, mask = padded("right")
    ours = model.generate(ids, attention_mask=mask, layout=layout, max_new_tokens=NEW)
    assert torch.equal(ours[:, : ids.shape[1]], ids)
    for row, prompt in zip(ours, random_prompts(LENGTHS)):
        assert row[ids.shape[1] :].tolist() == own_output(LLAMA, prompt, len(prompt) + NEW)


def test_without_a_mask_every_token_counts(model: MultiTokenModel) -> None:
    ids, _ = padded("left")
    ours = model.generate(ids, max_new_tokens=NEW)
    assert torch.equal(ours, transformers_generate(LLAMA, ids, torch.ones_like(ids), None))


def test_boolean_mask_is_a_mask(model: MultiTokenModel) -> None:
    ids, mask = padded("left")
    assert torch.equal(
        model.generate(ids, attention_mask=mask.bool(), max_new_tokens=NEW),
        model.generate(ids, attention_mask=mask, max_new_tokens=NEW),
    )


def test_generation_ends_at_the_context(model: MultiTokenModel) -> None:
    [prompt] = random_prompts((250,))
    ours = model.generate(torch.tensor([prompt]), max_new_tokens=NEW)
    assert ours.shape == (1, 256)
    assert ours[0, 250:].tolist() == own_output(LLAMA, prompt, 256)


# Settings.


def test_settings_are_fields_of_the_config(model: MultiTokenModel) -> None:
    ids, _ = padded("left")
    config = DecodeConfig(layout="linear", masks=2, max_new_tokens=5)
    assert model.generate(ids, config=config).shape[1] == ids.shape[1] + 5
    assert model.generate(ids, config=config, max_new_tokens=7).shape[1] == ids.shape[1] + 7
    assert config.max_new_tokens == 5
    with pytest.raises(ConfigError, match="branches is 0"):
        model.generate(ids, layout="tree", branches=0, nodes=4)


def test_misspelt_argument_is_refused(model: MultiTokenModel) -> None:
    ids, _ = padded("left")
    with pytest.raises(ValueError, match="temprature"):
        model.generate(ids, temprature=0.7)
    check_still_works(model)


def test_impossible_setting_is_refused(model: MultiTokenModel) -> None:
    ids, _ = padded("left")
    with pytest.raises(ConfigError, match="masks is -1; give 1 or more, or 0 for the trained number"):
        model.generate(ids, masks=-1)
    with pytest.raises(ValueError, match="`max_new_tokens` must be greater than 0"):
        model.generate(ids, max_new_tokens=0)
    check_still_works(model)


# Refusals.

ONE = torch.tensor([[1, 2, 3]])
REFUSED: list[tuple[str, torch.Tensor, dict[str, Any], str]] = [
    ("empty batch", ONE[:0], {}, "no prompt was given; give at least one"),
    ("empty prompt", ONE[:, :0], {}, "prompt 1 has no tokens; give at least one"),
    ("all padding", ONE, {"attention_mask": ONE * 0}, "prompt 1 has no tokens; give at least one"),
    (
        "prompt of the context",
        torch.ones(2, 256, dtype=torch.int64),
        {"attention_mask": torch.tensor([[0] * 99 + [1] * 157, [1] * 256])},
        "prompt 2 has 256 tokens and the base's context is 256; shorten it to 255 or fewer",
    ),
    ("token past the vocabulary", ONE + 93, {}, "prompt 1 has token 96 and the base knows 0 to 95; use the base's own"),
    ("negative token", ONE - 2, {}, "prompt 1 has token .* and the base knows 0 to 95; use the base's own tokenizer"),
    (
        "too many masks",
        ONE,
        {"masks": 5},
        "5 masks were asked for and the adapter was trained with 4; ask for at most 4",
    ),
]


def check_still_works(model: MultiTokenModel) -> None:
    """The next call is served as if nothing had been."""
    ids, mask = padded("left")
    assert not model.mask_model.gate.is_open
    ours = model.generate(ids, attention_mask=mask, max_new_tokens=NEW)
    assert torch.equal(ours, transformers_generate(LLAMA, ids, mask, None))


@pytest.mark.parametrize(("name", "ids", "more", "message"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_request_that_cannot_be_served_is_refused_and_forgotten(
    model: MultiTokenModel, name: str, ids: torch.Tensor, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message) as refusal:
        model.generate(ids, max_new_tokens=4, **more)
    assert isinstance(refusal.value, ForesayError)
    check_still_works(model)


def test_call_that_breaks_is_forgotten(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = padded("left")
    masks, calls = Gate.masks, count()

    def broken(*args: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return masks(*args)

    with monkeypatch.context() as patch:
        # Inside a forward, while the gate stands open and linears with the same input wait for their turn.
        patch.setattr(Gate, "masks", broken)
        with pytest.raises(KeyboardInterrupt):
            model.generate(ids, attention_mask=mask, max_new_tokens=NEW, layout="linear")
    check_still_works(model)


# Names and tokenizers.


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_base("nano", MTPConfig(num_masks=2, rank=2))


def test_answers_go_through_the_chat_template(nano: MultiTokenModel) -> None:
    seen = []
    [said] = nano.answer(["Say hi."], max_new_tokens=8, watch=lambda index, step: seen.append((index, step)))
    tokenizer = nano.require_tokenizer()
    ids = tokenizer("<|user|>Say hi.<|assistant|>", return_tensors="pt").input_ids
    plain = nano.base.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    assert said.tokens == plain[0, ids.shape[1] :].tolist()
    assert seen == [(0, step) for step in said.steps]


CHAT = [{"role": "user", "content": "Say hi."}]


def test_prompts_in_every_form_are_one_prompt(nano: MultiTokenModel) -> None:
    ids = nano.require_tokenizer()("<|user|>Say hi.<|assistant|>")["input_ids"]
    forms = ["Say hi.", CHAT, ids, torch.tensor(ids)]
    said = [nano.answer(form, max_new_tokens=6) for form in forms]
    [listed] = nano.answer([CHAT], max_new_tokens=6)
    assert {tuple(one.tokens) for one in (*said, listed)} == {tuple(said[0].tokens)}
    assert str(said[0]) == said[0].text == nano.require_tokenizer().decode(said[0].tokens, skip_special_tokens=True)
    assert (said[0].prompt_tokens, said[0].tokens_per_step) == (len(ids), 6 / len(said[0].steps))
    assert [one.prompt_tokens for one in nano.answer(["Say hi.", "Say hi, and bye."], max_new_tokens=2)] != [
        len(ids)
    ] * 2


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, "of type NoneType"),
        (3, "of type int"),
        ({"role": "user"}, "of type dict"),
        ([], "an empty list"),
        ([1.5], "a list of float"),
        (["Hi.", 3], "a list of int, str"),
        ([True], "a list of bool"),
        ([None], "a list of NoneType"),
    ],
    ids=str,
)
def test_prompts_in_no_known_form_are_refused_by_name(nano: MultiTokenModel, asked: Any, found: str) -> None:
    with pytest.raises(PromptError, match=f"the prompt is {found}; give a text, a list of texts, a chat"):
        nano.answer(asked)


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([{"role": "user"}], "message 1 needs a role and a content"),
        ([{"role": "user", "content": "half \ud83d"}], "half a character"),
        ("caf\udce9", "half a character"),
    ],
)
def test_chats_that_are_none_are_refused(nano: MultiTokenModel, chat: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        nano.answer(chat)


def test_tensors_and_arrays_in_a_list_are_ids(nano: MultiTokenModel) -> None:
    said = nano.answer([[5, 6], [7]], layout="quadratic", max_new_tokens=3)
    assert nano.answer([torch.tensor([5, 6]), np.array([7])], layout="quadratic", max_new_tokens=3) == said
    assert nano.answer([np.int64(5), np.int64(6)], layout="quadratic", max_new_tokens=3) == said[0]


def test_what_a_tokenizer_gave_is_to_be_unpacked(nano: MultiTokenModel) -> None:
    inputs = nano.require_tokenizer()("Hi there", return_tensors="pt")
    for ask in (nano.answer, nano.generate):
        with pytest.raises(
            PromptError, match=r"what a tokenizer gave \(BatchEncoding\); give its input_ids, or unpack it"
        ):
            ask(inputs)


def test_tokens_that_are_no_whole_numbers_are_refused(nano: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match=r"prompt 1 has token 5\.0, which is no whole number; give token ids"):
        nano.generate(torch.tensor([[5.0, 6.0]]), max_new_tokens=2)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda nano: nano.answer("Hi", {"layout": "linear"}), "config is a dict; give a DecodeConfig, or its fields"),
        (lambda nano: nano.answer("Hi", SampleConfig()), "config is a SampleConfig; give a DecodeConfig"),
        (lambda nano: nano.generate("Hi", config={"masks": 2}), "config is a dict; give a DecodeConfig"),
        (
            lambda nano: MultiTokenModel.from_base("nano", {"rank": 2}),
            "config is a dict; give an MTPConfig or a HeadsC",
        ),
        (lambda nano: MultiTokenModel.from_base(None), "the base is a NoneType; give a name"),
        (lambda nano: MultiTokenModel.from_base(nano.tokenizer), r"the base is a \w+; give a name .*, a causal LM"),
        (lambda nano: nano.save_pretrained("never", "float8"), "dtype is float8; give one of auto, float32"),
        (lambda nano: nano.save_pretrained("never", "auto"), "dtype is auto; give one of float32, bfloat16, float16"),
    ],
)
def test_what_is_of_another_kind_is_named(nano: MultiTokenModel, misuse: Any, message: str) -> None:
    with pytest.raises((ConfigError, UnsupportedBase), match=message):
        misuse(nano)


def test_a_model_is_saved_in_a_dtype_of_torch(nano: MultiTokenModel, tmp_path: Path) -> None:
    nano.save_pretrained(tmp_path / "own", torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "own" / "foresay.safetensors").values()} == {torch.bfloat16}


def test_generate_goes_on_with_texts_and_answers_chats(nano: MultiTokenModel) -> None:
    tokenizer = nano.require_tokenizer()
    texts = ["Once upon a time there was", "Say"]
    both = nano.generate(texts, max_new_tokens=6, layout="quadratic")
    for row, text in zip(both, texts):
        ids = tokenizer(text, return_tensors="pt").input_ids
        alone = nano.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, layout="plain")
        assert row[-6:].tolist() == alone[0, -6:].tolist()
    assert nano.generate(CHAT, max_new_tokens=6)[0, -6:].tolist() == nano.answer(CHAT, max_new_tokens=6).tokens
    with pytest.raises(PromptError, match="an attention_mask was given beside prompts that are no tensor"):
        nano.generate(texts, attention_mask=torch.ones(2, 3))


def test_answers_are_sampled_and_penalised_when_asked(nano: MultiTokenModel) -> None:
    greedy = nano.answer("Say hi.", max_new_tokens=12)
    sampled = {tuple(nano.answer("Say hi.", max_new_tokens=12, temperature=1.5, seed=seed).tokens) for seed in range(4)}
    assert len(sampled) > 1
    assert nano.answer("Say hi.", max_new_tokens=12, temperature=1.5, top_k=1).tokens == greedy.tokens
    prompt = torch.tensor([nano.require_tokenizer()("<|user|>Say hi.<|assistant|>")["input_ids"]])
    theirs = nano.generate(prompt, max_new_tokens=12, repetition_penalty=1.5, layout="plain")[0, prompt.shape[1] :]
    assert nano.answer("Say hi.", max_new_tokens=12, repetition_penalty=1.5).tokens == theirs.tolist() != greedy.tokens


def test_dtype_and_device_as_torch_has_them() -> None:
    model = MultiTokenModel.from_base(
        "nano", MTPConfig(num_masks=2, rank=2), dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    assert (model.dtype, model.dtype_name, model.device) == (torch.bfloat16, "bfloat16", torch.device("cpu"))
    assert model.to("cpu") is model
    assert model.answer("Say hi.", max_new_tokens=3).tokens
    with pytest.raises(ConfigError, match=r"open it with dtype=torch\.float32"):
        model.to(torch.float32)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"dtype is torch\.int8; give one of auto, float32, bfloat16, float16"):
        MultiTokenModel.from_base("nano", dtype=torch.int8)
    with pytest.raises(ConfigError, match="a model must lie on one device"):
        MultiTokenModel.from_base("nano", device_map="balanced")


def test_unknown_setting_of_an_answer_is_refused_with_the_known_ones(nano: MultiTokenModel) -> None:
    message = "unknown setting 'temprature'; known are layout, masks, branches, nodes, shortlist, prompt_lookup, "
    with pytest.raises(PromptError, match=message):
        nano.answer(["Say hi."], temprature=0.7)


def test_text_needs_a_tokenizer(model: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match="toy came without a tokenizer; give one, or use token ids"):
        model.answer(["Say hi."])


def test_a_pipeline_of_transformers_says_the_same() -> None:
    nano = MultiTokenModel.from_pretrained("nano", dtype="float32")
    pipe, called = pipeline("text-generation", model=nano.base.model, tokenizer=nano.tokenizer), list[str]()
    bridge = nano.bridge(DecodeConfig(layout="quadratic"))

    def drafting(*arguments: Any, **settings: Any) -> Any:
        called.append("drafting")
        return bridge(*arguments, **settings)

    asked = {"max_new_tokens": 24, "do_sample": False}
    assert pipe("Once upon a time", custom_generate=drafting, **asked) == pipe("Once upon a time", **asked)
    assert called == ["drafting"]
