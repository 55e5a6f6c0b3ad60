"""The server, asked with OpenAI's own client and with what no client would send."""

import math
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from importlib.util import find_spec
from time import monotonic

import openai
import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from foresay.cli.main import main
from foresay.data.chat import encode
from foresay.data.prompts import embedded_prompts
from foresay.decoding.config import SampleConfig
from foresay.decoding.live import GenerationHooks
from foresay.decoding.sampling.chooser import chooser_of
from foresay.foundation.errors import PromptError
from foresay.model import MultiTokenModel
from foresay.serving.config import PluginConfig, VllmServeConfig
from foresay.serving.openai.replies import ChatReply, CompletionReply
from foresay.serving.openai.schema import ChatRequest, CompletionRequest
from foresay.serving.openai.service import chat_ids
from foresay.serving.openai.worker import Event, Likely
from tests.support.served import (
    ASKED,
    DECODE,
    QUESTION,
    Served,
    model,
    refused,
    server,
)

__all__ = ["model", "server"]


def offline(model: MultiTokenModel, ids: list[int], tokens: int, sample: SampleConfig | None = None) -> str:
    decode = replace(DECODE, max_new_tokens=tokens, layout="plain")
    [said] = model.decode([ids], decode, GenerationHooks(chooser_of(sample or SampleConfig())))
    return str(model.require_tokenizer().decode(said.tokens, skip_special_tokens=True))


def test_a_chat_is_answered_as_offline_whole_and_in_a_stream(server: Served, model: MultiTokenModel) -> None:
    ids = encode(model.require_tokenizer(), QUESTION[0]["content"])
    whole = server.client.chat.completions.create(**ASKED, max_tokens=40)
    assert whole.choices[0].message.content == offline(model, ids, 40)
    assert whole.usage.prompt_tokens == len(ids)
    stream = server.client.chat.completions.create(
        **ASKED, max_completion_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    *steps, last = stream
    assert "".join(step.choices[0].delta.content for step in steps) == whole.choices[0].message.content
    assert [step.choices[0].delta.role for step in steps] == ["assistant", *[None] * (len(steps) - 1)]
    assert [step.choices[0].finish_reason for step in steps] == [
        *[None] * (len(steps) - 1),
        whole.choices[0].finish_reason,
    ]
    assert last.choices == []
    extended, first = last.usage.model_dump(), whole.usage.model_dump()
    # The same prompt was read before: its beginning is not read again.
    assert extended | {"prompt_tokens_details": None} == first | {"prompt_tokens_details": None}
    assert extended["steps"] == len(steps) < extended["completion_tokens"], "one chunk a step, of several tokens"
    assert 0 < extended["accepted"] <= extended["drafted"]


def test_plain_decoding_is_there_for_comparison(server: Served) -> None:
    fast = server.client.chat.completions.create(**ASKED, max_tokens=30)
    plain = server.client.chat.completions.create(**ASKED, max_tokens=30, extra_body={"layout": "plain"})
    assert plain.choices[0].message.content == fast.choices[0].message.content
    assert plain.usage.model_dump()["steps"] == plain.usage.completion_tokens == fast.usage.completion_tokens


def test_completions_take_texts_tokens_and_several_of_them(server: Served, model: MultiTokenModel) -> None:
    tokenizer = model.require_tokenizer()
    texts = ["Once upon a time", "def reverse(items):"]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    expected = [offline(model, some, 12) for some in ids]
    for prompt in (texts, ids):
        said = server.client.completions.create(model="nano", prompt=prompt, max_tokens=12, temperature=0)
        assert [choice.text for choice in said.choices] == expected
    one = server.client.completions.create(model="nano", prompt=ids[1], max_tokens=12, temperature=0, n=2)
    assert [choice.text for choice in one.choices] == [expected[1]] * 2
    assert [choice.index for choice in one.choices] == [0, 1]


def test_a_seed_gives_the_text_that_it_gives_offline(server: Served, model: MultiTokenModel) -> None:
    ids = encode(model.require_tokenizer(), QUESTION[0]["content"])
    settings = {"temperature": 0.9, "top_p": 0.95, "seed": 11}
    extra = {"top_k": 50, "min_p": 0.01}
    sample = SampleConfig(**settings, **extra)
    body = {**ASKED, **settings, "max_tokens": 24, "extra_body": extra}
    said = server.client.chat.completions.create(**body, n=2)
    assert said.choices[0].message.content == offline(model, ids, 24, sample)
    again = server.client.chat.completions.create(**{**body, "seed": 12})
    assert said.choices[1].message.content == again.choices[0].message.content
    assert said.choices[0].message.content != said.choices[1].message.content
    unseeded = [server.client.chat.completions.create(**ASKED | {"temperature": 1.5}, max_tokens=24) for _ in range(2)]
    assert unseeded[0].choices[0].message.content != unseeded[1].choices[0].message.content


def test_stop_strings_end_the_text_before_them(server: Served, model: MultiTokenModel) -> None:
    ids = encode(model.require_tokenizer(), QUESTION[0]["content"])
    whole = offline(model, ids, 40)
    stop = whole[7:12]
    said = server.client.chat.completions.create(**ASKED, max_tokens=40, stop=["never said", stop])
    assert said.choices[0].message.content == whole[: whole.index(stop)]
    assert said.choices[0].finish_reason == "stop"
    assert said.usage.completion_tokens < 40
    stream = server.client.chat.completions.create(**ASKED, max_tokens=40, stop=stop, stream=True)
    assert "".join(step.choices[0].delta.content for step in stream) == whole[: whole.index(stop)]


def test_penalties_change_what_is_said(server: Served) -> None:
    plain = server.client.chat.completions.create(**ASKED, max_tokens=40).choices[0].message.content
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 1.8}}):
        said = server.client.chat.completions.create(**ASKED, max_tokens=40, **penalty)
        assert said.choices[0].message.content != plain


def test_log_probabilities(server: Served, model: MultiTokenModel) -> None:
    said = server.client.chat.completions.create(**ASKED, max_tokens=10, logprobs=True, top_logprobs=3)
    tokens = said.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == said.choices[0].message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob <= 0, "greedy takes the likeliest"
        assert bytes(token.bytes).decode() == token.token
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.0001
    text = server.client.completions.create(model="nano", prompt="Once", max_tokens=8, temperature=0, logprobs=2)
    chances = text.choices[0].logprobs
    assert "".join(chances.tokens) == text.choices[0].text
    ends = [*chances.text_offset[1:], None]
    assert [text.choices[0].text[a:b] for a, b in zip(chances.text_offset, ends)] == chances.tokens
    stream = server.client.completions.create(
        model="nano", prompt="Once", max_tokens=8, temperature=0, logprobs=2, stream=True
    )
    assert [offset for step in stream for offset in step.choices[0].logprobs.text_offset] == chances.text_offset


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_named_where_asked_for(server: Served, model: MultiTokenModel, stream: bool) -> None:
    asked = {"model": "nano", "prompt": "Once upon", "max_tokens": 12, "temperature": 0, "stream": stream}
    said = server.client.completions.create(**asked, extra_body={"return_token_ids": True})
    tokens = [token for part in (said if stream else [said]) for choice in part.choices for token in choice.token_ids]
    ids = model.require_tokenizer()("Once upon")["input_ids"]
    [own] = model.decode([ids], replace(DECODE, max_new_tokens=12, layout="plain"))
    assert tokens == own.tokens
    silent = server.client.completions.create(**asked)
    assert not any(hasattr(choice, "token_ids") for part in (silent if stream else [silent]) for choice in part.choices)


def test_tokens_of_several_chat_answers_go_on_to_the_stop_string(server: Served, model: MultiTokenModel) -> None:
    asked = {**ASKED, "max_tokens": 24, "n": 2}
    whole = server.client.chat.completions.create(**asked).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    said = server.client.chat.completions.create(**asked, stop=stop, extra_body={"return_token_ids": True})
    for choice in said.choices:
        text = model.require_tokenizer().decode(choice.token_ids)
        assert choice.message.content == whole[: whole.index(stop)]
        assert text.startswith(choice.message.content + stop)
        assert len(choice.token_ids) < 24
    assert sum(len(choice.token_ids) for choice in said.choices) == said.usage.completion_tokens


def test_the_token_that_was_said_is_always_named(server: Served) -> None:
    said = server.client.completions.create(model="nano", prompt="Once", max_tokens=20, temperature=2, logprobs=1)
    chances = said.choices[0].logprobs
    for text, chance, named in zip(chances.tokens, chances.token_logprobs, chances.top_logprobs):
        assert named[text] == chance <= max(named.values())
    assert max(map(len, chances.top_logprobs)) == 2, "something unlikely was said"


@pytest.mark.parametrize("kind", [ChatReply, CompletionReply])
def test_tokens_make_up_the_text_where_spaces_are_letters(kind: type[ChatReply | CompletionReply]) -> None:
    words = ["<unk>", "a", "▁a", "▁Once", "▁upon", "▁time", "s"]
    core = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, "<unk>"))
    core.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    ids = [3, 4, 2, 5, 6]
    likely = [Likely(token, -0.5, ((token, -0.5),)) for token in ids]
    asked = CompletionRequest(model="nano", prompt="Once", logprobs=1)
    reply = kind("nano", tokenizer, asked)
    steps = [reply.chunk(Event(0, likely=likely[:2]), None, -1), reply.chunk(Event(0, likely=likely[2:]), None, 9)]
    chances = [step["choices"][0]["logprobs"] for step in steps]
    if kind is ChatReply:
        named = [(some["token"], some["top_logprobs"][0]["token"]) for step in chances for some in step["content"]]
    else:
        named = [(text, *some) for step in chances for text, some in zip(step["tokens"], step["top_logprobs"])]
    assert named == [(text, text) for text in ("Once", " upon", " a", " time", "s")]
    assert tokenizer.decode(ids) == "Once upon a times"


def test_models_health_and_page(server: Served) -> None:
    assert [card.id for card in server.client.models.list()] == ["nano"]
    assert server.client.models.retrieve("nano").owned_by == "foresay"
    assert server.http().get("/health").json() == {"status": "ok"}
    assert "<title>foresay" in server.http().get("/").text
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9' here"):
        server.client.models.retrieve("gpt-9")


def test_counters_have_the_names_of_dashboards(server: Served) -> None:
    before = server.counters()
    asked = monotonic()
    said = server.client.chat.completions.create(**ASKED, max_tokens=40)
    seconds = monotonic() - asked
    after = server.counters()
    usage = said.usage.model_dump()
    for name, grown in (
        ("vllm:prompt_tokens_total", usage["prompt_tokens"]),
        ("vllm:generation_tokens_total", usage["completion_tokens"]),
        ("vllm:spec_decode_num_draft_tokens_total", usage["drafted"]),
        ("vllm:spec_decode_num_accepted_tokens_total", usage["accepted"]),
        ("vllm:time_to_first_token_seconds_count", 1),
        ("vllm:inter_token_latency_seconds_count", usage["steps"] - 1),
        ("vllm:e2e_request_latency_seconds_count", 1),
        ("vllm:request_generation_tokens_sum", usage["completion_tokens"]),
        ("vllm:request_params_max_tokens_sum", 40),
        ("vllm:request_params_n_sum", 1),
    ):
        assert after[name] - before.get(name, 0) == grown, name
    names = ("queue_time", "prefill_time", "decode_time", "inference_time", "time_per_output_token")
    for name in names:
        assert after[f"vllm:request_{name}_seconds_count"] == before.get(f"vllm:request_{name}_seconds_count", 0) + 1
    queue, prefill, decode, inference, each = (
        after[name] - before.get(name, 0) for name in (f"vllm:request_{name}_seconds_sum" for name in names)
    )
    assert min(queue, prefill, decode, each) > 0
    assert prefill + decode == pytest.approx(inference)
    assert queue + inference < seconds
    assert each == pytest.approx(decode / (usage["completion_tokens"] - 1))
    places = [name for name in after if "per_pos_total" in name]
    assert sum(after[name] - before.get(name, 0) for name in places) == usage["accepted"]
    assert len(places) == 3
    assert after["vllm:num_requests_running"] == after["vllm:num_requests_waiting"] == 0


def test_many_at_once_each_as_alone(server: Served, model: MultiTokenModel) -> None:
    prompts = embedded_prompts(model.require_tokenizer(), "test", 3)
    expected = [offline(model, list(prompt.ids), 24) for prompt in prompts]

    def ask(place: int) -> str:
        return server.client.completions.create(
            model="nano", prompt=list(prompts[place].ids), max_tokens=24, temperature=0
        ).choices[0].text  # fmt: skip

    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(ask, range(len(prompts)))) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "gpt-9"}, "there is no model 'gpt-9' here; ask for 'nano'"),
        ({"temperature": "hot"}, "temperature: Input should be a valid number"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": 1e-30}, "temperature is 1e-30; give 0, or 0.01 or more"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n: "),
        ({"n": 100}, "100 answers were asked for and there is room for 12"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "prompt and answer may have 1024 together"),
        ({"max_tokens": 10**30}, "prompt and answer may have 1024 together"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0: content is null; give the message's text"),
        ({"messages": [{"role": "system", "content": "Be short."}, *QUESTION]}, "no place for system messages; put"),
        ({"messages": [{"role": "system", "content": "Be short."}]}, "no place for system messages; put"),
        ({"messages": [*QUESTION, {"role": "developer", "content": "Short."}]}, "no place for developer messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "content"),
        ({"messages": [{"role": "user", "content": "long " * 3000}]}, "prompt and answer may have 1024 together"),
        ({"messages": [{"role": "user", "content": "half \ud800 a character"}]}, "half a character"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop: List should have at most 16 items"),
        ({"stop": 5}, "stop: Input should be a valid string or a valid list"),
        ({"messages": [5]}, "messages.0: Input should be an object"),
        ({"tool_choice": "sometimes"}, "tool_choice: Input should be 'none', 'auto' or 'required'"),
        ({"min_tokens": 65}, "min_tokens is 65 and without max_tokens an answer has at most 64; give a smaller one"),
        ({"top_logprobs": 2}, "top_logprobs is given without logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options are given without stream"),
        ({"tools": [{"type": "function"}]}, "tools.0.function: Field required"),
        ({"functions": [{"name": "f"}]}, "functions is not supported here; leave it out"),
        ({"echo": True}, "echo is not supported here; leave it out"),
        ({"frobnicate": 1}, "frobnicate is not supported here; leave it out"),
        ({"frobnicate\ud800": 1}, "half a character"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(server: Served, change: dict[str, object], words: str) -> None:
    error = refused(server, 404 if "model" in change else 400, {**ASKED, **change})
    assert words in error["message"]


def test_a_reply_is_a_turn_of_the_next_request(server: Served) -> None:
    said = server.client.chat.completions.create(**ASKED, max_tokens=4).choices[0].message
    turns = [said.model_dump() | {"name": "nano"}, {"role": "assistant", "content": said.content}]
    more = [{"role": "user", "content": "And then?"}]
    both = [
        server.client.chat.completions.create(**{**ASKED, "messages": [*QUESTION, turn, *more]}, max_tokens=8)
        for turn in turns
    ]
    assert "refusal" in turns[0], "a null for what it lacks"
    assert both[0].choices[0].message == both[1].choices[0].message
    assert both[0].usage.prompt_tokens == both[1].usage.prompt_tokens


def test_a_template_that_places_system_messages_gets_them(model: MultiTokenModel) -> None:
    tokenizer = copy(model.require_tokenizer())
    asked = ChatRequest(model="nano", messages=[{"role": "system", "content": "Be short."}, *QUESTION])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert tokenizer.decode(chat_ids(tokenizer, asked.messages)).startswith("system: Be short.\nuser: Tom")


def test_a_template_that_drops_them_does_not(model: MultiTokenModel) -> None:
    tokenizer = copy(model.require_tokenizer())
    asked = ChatRequest(model="nano", messages=[{"role": "developer", "content": "Be short."}, *QUESTION])
    tokenizer.chat_template = "{% for m in messages if m.role == 'user' %}user: {{ m.content }}{% endfor %}"
    with pytest.raises(PromptError, match="no place for developer messages"):
        chat_ids(tokenizer, asked.messages)


def test_what_is_too_long_is_named_as_clients_know_it(server: Served) -> None:
    error = refused(server, 400, {**ASKED, "max_tokens": 5000})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    error = refused(server, 400, {"model": "nano", "prompt": [[1], [1] * 1024]}, "/v1/completions")
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


def test_values_that_ask_for_nothing_are_taken(server: Served) -> None:
    nothing = {"tools": [], "response_format": {"type": "text"}, "logit_bias": None, "stop": None, "seed": None}
    server.client.chat.completions.create(**ASKED, max_tokens=2, user="me", extra_body=nothing)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"", "the body is empty; send a JSON object"),
        (b"[]", "the body is JSON, but no object"),
        (b'{"model": "\xff\xfe"}', "the body cannot be read as JSON; send it as UTF-8"),
        (b'{"model": "nano", "temperature": NaN}', ""),
        (b"[" * 100_000, "nested too deep"),
        (b'{"model": "nano", "seed": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'"' + b"x" * 2_000_000 + b'"', "longer than 1000000 bytes"),
    ],
)
def test_bodies_that_are_no_request(server: Served, body: bytes, words: str) -> None:
    assert words in refused(server, 413 if len(body) > 1_000_000 else 400, body)["message"]


def test_other_paths_methods_and_kinds_of_body(server: Served) -> None:
    http = server.http()
    assert http.get("/v1/nowhere").json()["error"]["message"] == "/v1/nowhere: Not Found"
    assert http.get("/v1/chat/completions").status_code == 405
    assert http.post("/v1/chat/completions", data={"model": "nano"}).status_code == 400


def test_vllm_serves_what_it_is_handed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []

    class Server:
        url = "http://127.0.0.1:9"
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: asked.append("ended")  # noqa: E731
        wait_until_ready = lambda self, seconds: asked.append("ready")  # noqa: E731
        wait = lambda self: 0  # noqa: E731

    monkeypatch.setattr("foresay.cli.commands.serve.start", lambda *given: asked.append(given) or Server())
    assert main(["serve", "nano", "--engine", "vllm", "--port", "9", "--host", "0.0.0.0"]) == 0
    assert "0.0.0.0 is heard by others, and no --api-key is set" in capsys.readouterr().err
    asked.clear()
    assert main(["serve", "nano", "--engine", "vllm", "--port", "9", "--api-key", "k", "--masks", "3"]) == 0
    assert asked == [("nano", VllmServeConfig(port=9, api_key="k"), PluginConfig(masks=3)), "ready", "ended"]


def test_vllm_that_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vllm is installed here")
    assert main(["serve", "nano", "--engine", "vllm"]) == 2
    assert "vllm" in capsys.readouterr().err
