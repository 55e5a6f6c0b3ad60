"""Inside transformers: streamers, refusals that leave nothing after, bases on several devices."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    TextIteratorStreamer,
    TextStreamer,
)
from transformers.generation.logits_process import (
    InfNanRemoveLogitsProcessor,
    LogitsProcessor,
    SynthIDTextWatermarkLogitsProcessor,
    TemperatureLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from foresay.cli import main as cli
from foresay.decoding.config import DecodeConfig
from foresay.decoding.sampling.chooser import Greedy, Sampled
from foresay.decoding.sampling.logits_processors import Place, Processing
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.foundation.errors import PromptError, UnsupportedBase
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from tests.support.toys import GPT2, LLAMA, PHI3_LONGROPE, random_prompts, with_adapter

GREEDY = {"do_sample": False, "max_new_tokens": 10}
ONE = torch.tensor([[44, 15, 53, 1, 67, 27]])
RAGGED = {
    "input_ids": torch.tensor([[0, 0, 7, 8], [5, 9, 3, 2]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
}


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    model = MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy")
    model.base.model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


def plain(model: MultiTokenModel, **arguments: Any) -> Tensor:
    model.detach_hooks()
    return model.base.model.generate(**arguments)


def check_still_works(model: MultiTokenModel) -> None:
    assert not model.mask_model.gate.is_open
    assert torch.equal(model.generate(**RAGGED, **GREEDY), plain(model, **RAGGED, **GREEDY))


# Streamers.


class Recorder(BaseStreamer):
    def __init__(self) -> None:
        self.put_: list[list[Any]] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        self.put_.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


WAYS: dict[str, Callable[..., Tensor]] = {
    "generate": lambda model, streamer, **more: model.generate(streamer=streamer, **more),
    "custom_generate": lambda model, streamer, **more: model.base.model.generate(
        custom_generate=model.bridge(streamer=streamer), **more
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_streamer_is_told_what_transformers_tells_it(
    model: MultiTokenModel, way: Callable[..., Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = GREEDY | {"inputs": ONE, "attention_mask": torch.ones_like(ONE)}
    stop = int(plain(model, **arguments)[0, -3])
    for more in ({}, {"eos_token_id": stop}):
        own, ours = Recorder(), Recorder()
        plain(model, streamer=own, **arguments, **more)
        way(model, ours, **arguments, **more)
        assert ours.put_ == own.put_
        assert ours.ended == own.ended == 1


def test_text_is_streamed_from_a_thread(nano: MultiTokenModel, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = nano.require_tokenizer()
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    arguments = {"inputs": inputs.input_ids, "do_sample": False, "max_new_tokens": 24}
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = Thread(target=nano.generate, kwargs=arguments | {"streamer": streamer})
    thread.start()
    chunks = list(streamer)
    thread.join()
    said = plain(nano, **arguments)[0, inputs.input_ids.shape[1] :]
    assert "".join(chunks) == tokenizer.decode(said)
    assert len(chunks) > 3
    nano.generate(**arguments, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out.startswith("Once upon a time")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("more", [RAGGED, {"inputs": ONE, "num_return_sequences": 2, "do_sample": True}], ids=len)
def test_a_streamer_of_several_sequences_is_refused_and_told_nothing(
    model: MultiTokenModel, way: Callable[..., Tensor], more: dict[str, Any]
) -> None:
    recorder = Recorder()
    with pytest.raises(PromptError, match="a streamer shows one sequence and there are 2; give one prompt, or leave"):
        way(model, recorder, max_new_tokens=3, **more)
    with pytest.raises(PromptError, match="prompt 1 has 300 tokens"):
        way(model, recorder, max_new_tokens=3, inputs=torch.ones(1, 300, dtype=torch.int64))
    assert recorder.put_ == []
    check_still_works(model)


# Refusals.

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 3}, "beam_search cannot be accelerated, because .*; use num_beams=1"),
    "beams in a config": ({"generation_config": GenerationConfig(num_beams=2)}, "beam_search cannot be accelerated"),
    "sampled beams": ({"num_beams": 3, "do_sample": True}, "beam_sample cannot be .*; use num_beams=1"),
    "contrastive": ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive_search cannot be .*; leave out penalty_alpha"),
    "layers against each other": ({"dola_layers": "high"}, "dola_generation cannot be .*; leave out dola_layers"),
    "prompt lookup": ({"prompt_lookup_num_tokens": 2}, "assisted_generation cannot be .*; leave out .* prompt lookup"),
    "early exit": ({"assistant_early_exit": 1}, "assisted_generation cannot be"),
    "attentions": (
        {"return_dict_in_generate": True, "output_attentions": True},
        "output_attentions cannot be returned, because .*; leave it out",
    ),
    "hidden states": (
        {"return_dict_in_generate": True, "output_hidden_states": True},
        "output_hidden_states cannot be returned, because .*; leave it out",
    ),
    "a fixed cache": ({"cache_implementation": "static"}, "cache_implementation is 'static' and foresay keeps its own"),
    "a filled cache": (
        {"past_key_values": "filled"},
        "a cache was given .* keeps its own; give the whole|past_key_values cannot be used here, .* its own cache; ",
    ),
    "embeddings": ({"inputs_embeds": torch.zeros(2, 4, 32)}, "inputs_embeds cannot be continued, .*; give input_ids"),
    "other positions": ({"position_ids": torch.arange(4)[None] + 1}, "position_ids count otherwise .*; leave them out"),
    "a short mask": ({"attention_mask": torch.ones(2, 3, dtype=torch.int64)}, r"attention_mask is \(2, 3\) and input_"),
    "prompts of the batch": (
        {"encoder_repetition_penalty": 1.2},
        "EncoderRepetitionPenaltyLogitsProcessor holds every prompt of the batch, .*; give one prompt at a time",
    ),
    "guidance": ({"guidance_scale": 1.5}, "UnbatchedClassifierFreeGuidance.* keeps a state between calls"),
    "a watermark with a memory": (
        {
            "logits_processor": [
                SynthIDTextWatermarkLogitsProcessor(3, [1, 2], 16, 0, 8, device="cpu"),
            ]
        },
        "SynthIDTextWatermark.* keeps a state between calls",
    ),
}
WITHHELD: dict[str, tuple[dict[str, Any], str]] = {
    "an assistant": ({"assistant_model": GPT2}, "assistant_model cannot be used here, because the base drafts for it"),
    "another way": ({"custom_generate": print}, "custom_generate cannot be used here, because"),
    "an empty cache": (
        {"past_key_values": DynamicCache()},
        "past_key_values cannot be used here, because foresay keep",
    ),
    "other processes": ({"synced_gpus": True}, "synced_gpus cannot be used here, because"),
    "healing": ({"token_healing": True}, "token_healing cannot be used here, because transformers withholds"),
    "pages": ({"cache_implementation": "paged"}, "cache_implementation is 'paged' and foresay keeps its own cache"),
}


def request(model: MultiTokenModel, arguments: dict[str, Any]) -> dict[str, Any]:
    arguments = RAGGED | arguments | ({} if "generation_config" in arguments else {"max_new_tokens": 5})
    if arguments.get("past_key_values") == "filled":
        arguments["past_key_values"] = model.base.model(RAGGED["input_ids"][:, :2], use_cache=True).past_key_values
    return arguments


@pytest.mark.uses_deprecated  # a cache of the caller, by its old name
@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_work_is_refused_with_the_reason(
    model: MultiTokenModel, arguments: dict[str, Any], message: str
) -> None:
    for run in (model.generate, lambda **more: model.base.model.generate(custom_generate=model, **more)):
        with pytest.raises(PromptError, match=message) as refusal:
            run(**request(model, arguments))
        assert "\n" not in str(refusal.value)
        check_still_works(model)


@pytest.mark.parametrize(("arguments", "message"), WITHHELD.values(), ids=WITHHELD.keys())
def test_what_transformers_would_drop_is_refused(
    model: MultiTokenModel, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        model.generate(**request(model, arguments))
    check_still_works(model)


@pytest.mark.skipif(
    "_is_user_defined" not in inspect.getsource(GenerationMixin),
    reason=f"transformers {transformers.__version__} does not tell a given cache from its own where both are empty",
)
@pytest.mark.uses_deprecated  # a cache of the caller, by its old name
def test_an_empty_cache_is_refused_from_the_other_side(model: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match=r"a cache was given \(past_key_values\), and foresay keeps its own; give"):
        model.base.model.generate(ONE, custom_generate=model, past_key_values=DynamicCache(), **GREEDY)
    check_still_works(model)


def test_other_inputs_are_transformers_to_refuse(model: MultiTokenModel) -> None:
    with pytest.raises(ValueError, match="encoder_outputs"):
        model.generate(**RAGGED, encoder_outputs=torch.zeros(2, 4, 32), **GREEDY)
    check_still_works(model)


def test_another_model_is_refused(model: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match="generate was called on another model than the adapter's base; call it on"):
        LLAMA.model().generate(ONE, custom_generate=model, **GREEDY)


def test_stop_strings_need_a_tokenizer(model: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match="stop strings need a tokenizer and this model has none; give one"):
        model.generate(ONE, stop_strings="a", **GREEDY)
    check_still_works(model)


# Processors.


class Broken(LogitsProcessor):
    """Gives NaN from the third new token on."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores * (torch.nan if input_ids.shape[1] > 6 else 1)


class Nothing(LogitsProcessor):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.full_like(scores, -torch.inf)


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_processor_that_gives_nan_is_named(model: MultiTokenModel, do_sample: bool) -> None:
    with pytest.raises(PromptError, match="Broken gave NaN scores; mend or leave out that processor"):
        model.generate(**RAGGED, max_new_tokens=9, do_sample=do_sample, logits_processor=[Broken()])
    check_still_works(model)


def test_a_processor_that_leaves_no_token_is_refused_where_one_is_drawn(model: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match=r"no token is left to draw: .*; loosen the processors"):
        model.generate(**RAGGED, max_new_tokens=5, do_sample=True, logits_processor=[Nothing()])
    check_still_works(model)


def test_nan_of_the_base_is_not_the_processors_fault() -> None:
    logits = torch.full((1, 2, 4), torch.nan)
    for processor in (TemperatureLogitsWarper(0.5), Broken()):
        with pytest.raises(PromptError, match="the base gave NaN scores; load it in float32"):
            Processing((processor,)).rows([[[1], [1, 2]]], logits)
    mended = Processing((InfNanRemoveLogitsProcessor(), TemperatureLogitsWarper(0.5)))
    assert not mended.rows([], logits).isnan().any()


def test_processors_follow_their_sequences() -> None:
    """When a sequence of a batch is finished, the others keep their numbers and their padding."""
    places = tuple(Place(index, (0,) * index + (5,), index, 1) for index in range(3))
    for chooser in (
        Greedy(Processing((Broken(),), places)),
        Sampled(SeededNumbers(0, range(3)), Processing((Broken(),), places)),
    ):
        chooser.select([2, 0])
        assert [place.index for place in chooser.processing.places] == [2, 0]
    assert places[2].text([5, 6, 7]) == [0, 0, 5, 6, 7]


def test_sequences_that_go_alone_keep_their_numbers() -> None:
    """On both sides of a longrope switch prompts are decoded one by one; processors and criteria still know them."""
    toy = PHI3_LONGROPE
    model = MultiTokenModel(with_adapter(toy.model(), masks=3), None, "toy")
    model.base.model.generation_config.pad_token_id = 0
    rows = [[*[0] * (14 - len(prompt)), *prompt] for prompt in random_prompts((14, 9, 5))]
    arguments = {"input_ids": torch.tensor(rows), "attention_mask": (torch.tensor(rows) > 0).long()}
    stops: list[int] = []

    def ends(ids: Tensor, scores: Any, **rest: Any) -> Tensor:
        stops.append(int(ids[0, -1]) % 3)
        assert ids.shape[1] > 14
        return torch.zeros(len(ids), dtype=torch.bool)

    text = model.generate(
        **arguments,
        **GREEDY,
        prefix_allowed_tokens_fn=lambda row, ids: list(range(row, 96, 3)),
        stopping_criteria=[ends],
    )
    assert (text[:, 14:] % 3).tolist() == [[0] * 10, [1] * 10, [2] * 10]
    assert sorted(set(stops)) == [0, 1, 2]


# Bases.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    LLAMA.model().save_pretrained(folder)
    return folder


def test_a_base_on_one_device_works_however_it_was_placed(saved: Path) -> None:
    for placed in ("auto", {"": "cpu"}):
        base = AutoModelForCausalLM.from_pretrained(saved, device_map=placed)
        model = MultiTokenModel(with_adapter(base, masks=3), None, "toy")
        ours = model.generate(ONE.to(base.device), **GREEDY)
        assert torch.equal(ours, plain(model, inputs=ONE.to(base.device), **GREEDY))


def test_a_base_on_several_devices_is_refused(saved: Path, tmp_path: Path) -> None:
    parts = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head", "model.layers.0")
    spread = dict.fromkeys(parts, "cpu") | {"model.layers.1": "disk"}
    base = AutoModelForCausalLM.from_pretrained(saved, device_map=spread, offload_folder=tmp_path)
    with pytest.raises(UnsupportedBase, match=r"LlamaForCausalLM is spread over cpu, disk, .*; load it on one device"):
        MultiTokenModel.from_base(base)


def test_a_tokenizer_of_another_base_is_refused_with_the_token(nano: MultiTokenModel) -> None:
    model = MultiTokenModel.from_base(LLAMA.model(), MTPConfig(num_masks=2, rank=2), tokenizer=nano.tokenizer)
    message = r"prompt 1 has token \d+ and the base knows 0 to 95; use the base's own tokenizer"
    with pytest.raises(PromptError, match=message):
        model.answer(["Say hi."])
    with pytest.raises(PromptError, match=message):
        model.generate(nano.require_tokenizer()("Say hi.", return_tensors="pt").input_ids, **GREEDY)


def test_a_tokenizer_of_another_base_is_refused_in_training(
    nano: MultiTokenModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, data = tmp_path / "base", tmp_path / "data.jsonl"
    LLAMA.model().save_pretrained(base)
    nano.require_tokenizer().save_pretrained(base)
    data.write_text("".join(json.dumps({"prompt": "Say hi.", "response": f"Hi {n}."}) + "\n" for n in range(20)))
    arguments = ["train", str(base), "--data", str(data), "--out", str(tmp_path / "out"), "--steps", "1"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "use the base's own tokenizer" in said.err
    assert not (tmp_path / "out").exists()


def test_bridges_have_settings_of_their_own(model: MultiTokenModel) -> None:
    bridge = model.bridge(DecodeConfig(layout="linear", masks=9))
    with pytest.raises(PromptError, match="9 masks were asked for and the adapter was trained with 3"):
        model.base.model.generate(ONE, custom_generate=bridge, **GREEDY)
    check_still_works(model)
