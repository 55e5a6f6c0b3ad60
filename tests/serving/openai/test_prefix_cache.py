"""What the server keeps of prompts and answers: the same text, and said in usage and counters."""

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from foresay.cli.main import main
from foresay.decoding.config import QueueConfig
from foresay.decoding.prefix_cache import BLOCK
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.serving.openai import memory_check
from foresay.serving.openai.memory_check import check_room
from tests.support.served import ASKED, DECODE, QUESTION, Served, model, served

__all__ = ["model"]

LONG = [{"role": "user", "content": "Tom has 3 apples and buys 4 more. " * 4 + "How many apples has he?"}]


def cached(usage: object) -> int:
    return int(usage.prompt_tokens_details.cached_tokens)  # type: ignore[attr-defined]


def second_turn(server: Served, **more: object) -> tuple[str, int, int]:
    """Text of the answer to a second turn, cached tokens of the first and of the second."""
    first = server.client.chat.completions.create(**{**ASKED, "messages": LONG, "max_tokens": 24, **more})
    chat = [*LONG, {"role": "assistant", "content": first.choices[0].message.content}, *QUESTION]
    again = server.client.chat.completions.create(**{**ASKED, "messages": chat, "max_tokens": 24, **more})
    assert 0 <= again.usage.prompt_tokens - cached(again.usage) <= again.usage.prompt_tokens
    return again.choices[0].message.content, cached(first.usage), cached(again.usage)


def test_a_second_turn_is_found_and_says_the_same(model: MultiTokenModel) -> None:
    with served(model, queue=QueueConfig(sequences=2, prefix_cache=0)) as server:
        without, *nothing = second_turn(server)
        counted = server.counters()
    assert nothing == [0, 0]
    assert counted["vllm:prefix_cache_queries_total"] == counted["foresay:prefix_cache_bytes"] == 0
    with served(model, queue=QueueConfig(sequences=2, prefix_cache=8)) as server:
        text, before, after = second_turn(server)
        assert (text, before) == (without, 0)
        assert after >= 3 * BLOCK
        assert after % BLOCK == 0
        counted = server.counters()
        assert counted["vllm:prefix_cache_hits_total"] == after
        assert counted["vllm:prefix_cache_queries_total"] == counted["vllm:prompt_tokens_total"]
        assert 0 < counted["foresay:prefix_cache_bytes"] <= 8 * 2**20
        plain, *_, found = second_turn(server, extra_body={"layout": "plain"})
        assert plain == without
        assert found >= after, "what one engine read serves the other"


def test_usage_counts_the_prompt_of_several_answers_once(model: MultiTokenModel) -> None:
    with served(model) as server:
        asked = {**ASKED, "messages": LONG, "max_tokens": 4, "n": 3}
        assert cached(server.client.chat.completions.create(**asked).usage) == 0
        said = server.client.chat.completions.create(**asked)
        assert 0 < cached(said.usage) < said.usage.prompt_tokens
        *_, last = server.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        assert last.usage == said.usage


def test_the_budget_counts_as_memory(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 2**30)
    check_room(model, {DECODE: 1}, 64, 512)
    with pytest.raises(ConfigError, match=r"with a prefix cache of 2.0 GiB takes .* smaller --max-length or --prefix-"):
        check_room(model, {DECODE: 1}, 64, 2048)


def test_a_budget_below_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nano", "--prefix-cache", "-1"]) == 2
    assert "prefix_cache" in capsys.readouterr().err
