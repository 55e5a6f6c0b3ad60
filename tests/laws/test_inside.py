"""Inside transformers: the same arguments give the same tokens as transformers' own `generate`."""

from typing import Any

import pytest
import torch
from transformers import TextStreamer
from transformers.generation.logits_process import LogitsProcessor, SynthIDTextWatermarkLogitsProcessor

from foresay.config import LayoutName
from foresay.errors import PromptError
from foresay.model import MultiTokenModel
from toys import GPT2, LLAMA, Toy, random_prompts, with_adapter

LENGTHS = (5, 9, 2)
NEW = 30


def front_door(toy: Toy) -> MultiTokenModel:
    model = MultiTokenModel(with_adapter(toy.model(), masks=3), None, "toy")
    model.core.model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="module")
def llama() -> MultiTokenModel:
    return front_door(LLAMA)


def batch() -> dict[str, torch.Tensor]:
    """Ragged prompts, padded in front."""
    longest = max(LENGTHS)
    prompts = random_prompts(LENGTHS)
    ids = [[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts]
    mask = [[*[0] * (longest - len(prompt)), *[1] * len(prompt)] for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "repetition penalty": {"repetition_penalty": 1.5},
    "no repeated bigrams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[5], [7, 9]]},
    "sequence bias": {"sequence_bias": [[[11], 4.0], [[3, 4], -9.0]]},
    "suppressed tokens": {"suppress_tokens": list(range(0, 96, 3))},
    "a list of stops": {"eos_token_id": [17, 40, 63]},
    "max length": {"max_length": 20, "max_new_tokens": None},
}


@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_the_same_arguments_give_the_same_tokens(
    llama: MultiTokenModel, arguments: dict[str, Any], layout: LayoutName
) -> None:
    settings = {"do_sample": False, "max_new_tokens": NEW} | arguments
    own = llama.core.model.generate(**batch(), **settings)
    assert torch.equal(llama.generate(**batch(), layout=layout, **settings), own)
    if layout == "quadratic":
        assert torch.equal(llama.core.model.generate(**batch(), custom_generate=llama, **settings), own)


@pytest.mark.parametrize("arguments", [{"min_new_tokens": 20, "eos_token_id": [17, 40]}, {"min_length": 15}], ids=str)
def test_processors_that_count_positions_work_without_padding(
    llama: MultiTokenModel, arguments: dict[str, Any]
) -> None:
    ids = torch.tensor(random_prompts((6, 6)))
    settings = {"do_sample": False, "max_new_tokens": NEW} | arguments
    own = llama.core.model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    assert torch.equal(llama.generate(ids, attention_mask=torch.ones_like(ids), **settings), own)


def test_a_users_processor_and_criterion(llama: MultiTokenModel) -> None:
    class EvenAfterOdd(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            odd = (input_ids[:, -1] % 2 == 1)[:, None]
            return scores.masked_fill(odd & (torch.arange(scores.shape[-1]) % 2 == 1), -torch.inf)

    def ends(ids: torch.Tensor, scores: torch.Tensor | None, **rest: Any) -> torch.Tensor:
        return ids[:, -1] % 7 == 0

    # Without any stop token transformers goes on behind a criterion until the whole batch has met it; with one it pads.
    settings = {"do_sample": False, "max_new_tokens": NEW, "logits_processor": [EvenAfterOdd()], "eos_token_id": 95}
    own = llama.core.model.generate(**batch(), **settings, stopping_criteria=[ends])
    ours = llama.generate(**batch(), **settings, stopping_criteria=[ends])
    assert torch.equal(ours, own)
    assert ours.shape[1] < max(LENGTHS) + NEW


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


class Recorder(TextStreamer):
    def __init__(self) -> None:
        self.chunks: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.chunks.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended += 1


def test_a_streamer_gets_the_prompt_and_a_chunk_each_step() -> None:
    model, recorder = front_door(GPT2), Recorder()
    ids = torch.tensor(random_prompts((4,)))
    text = model.generate(ids, do_sample=False, max_new_tokens=10, streamer=recorder)
    assert [token for chunk in recorder.chunks for token in chunk] == text[0].tolist()
    assert recorder.chunks[0] == ids[0].tolist()
    assert recorder.ended == 1


def test_a_result_object_on_request(llama: MultiTokenModel) -> None:
    plain = llama.generate(**batch(), do_sample=False, max_new_tokens=5)
    result = llama.generate(**batch(), do_sample=False, max_new_tokens=5, return_dict_in_generate=True)
    assert torch.equal(result.sequences, plain)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 3}, "beam_search cannot be accelerated"),
    "scores": ({"return_dict_in_generate": True, "output_scores": True}, "output_scores is not kept"),
    "counting with padding": ({"min_new_tokens": 5, "eos_token_id": 3}, "Min(New|Length).* depends on the padding"),
    "prefix function": (
        {"prefix_allowed_tokens_fn": lambda batch_id, ids: [1, 2, 3]},
        "PrefixConstrained.* depends on the padding or the order",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_work_is_refused_with_the_reason(
    llama: MultiTokenModel, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        llama.generate(**batch(), max_new_tokens=5, **arguments)
    assert llama.generate(**batch(), do_sample=False, max_new_tokens=2).shape == (3, max(LENGTHS) + 2)


def test_stateful_processors_are_refused(llama: MultiTokenModel) -> None:
    watermark = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=3, keys=[1, 2], sampling_table_size=16, sampling_table_seed=0, context_history_size=8, device="cpu"
    )
    with pytest.raises(PromptError, match="keeps a state between calls"):
        llama.generate(**batch(), max_new_tokens=5, logits_processor=[watermark])


def test_a_processor_that_gives_nan_is_named(llama: MultiTokenModel) -> None:
    class Broken(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return scores * torch.nan

    with pytest.raises(PromptError, match="Broken gave NaN scores"):
        llama.generate(**batch(), max_new_tokens=5, logits_processor=[Broken()])
    assert llama.generate(**batch(), do_sample=False, max_new_tokens=2).shape == (3, max(LENGTHS) + 2)
