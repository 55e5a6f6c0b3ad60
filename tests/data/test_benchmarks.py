"""Benchmarks: what the command line names, and rows of the usual schemas as prompts."""

import json
from pathlib import Path
from typing import Any

import pytest

from foresay.data.benchmarks import NAMED, Benchmark, benchmarks_of
from foresay.foundation.errors import ConfigError, DataError
from foresay.models.base.load import load_tokenizer


def texts(path: Path, *rows: dict[str, Any], most: int = 0) -> list[str]:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return [prompt.text for prompt in Benchmark.parse(f"any={path}").prompts(load_tokenizer("nano"), most)]


def test_a_benchmark_has_a_domain_a_name_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k_test.jsonl"
    path.write_text('{"Q": "1 + 1?"}\n{"Q": "2 + 2?"}\n')
    benchmark = Benchmark.parse(f"math={path},prompt=Q,rows=1")
    [prompt] = benchmark.prompts(load_tokenizer("nano"), 0)
    assert (benchmark.domain, benchmark.name) == ("math", "gsm8k_test")
    assert (prompt.domain, prompt.benchmark, prompt.text) == ("math", "gsm8k_test", "1 + 1?")


def test_questions_are_asked_with_their_choices(tmp_path: Path) -> None:
    arc = {"question": "Why?", "choices": {"text": ["so", "no"], "label": ["1", "2"]}, "answerKey": "1"}
    mmlu = {"question": "What?", "choices": ["x", "y"], "answer": 1}
    bare = {"question": "Who?", "answer": "me"}
    torn = {"question": "When?", "choices": {"text": ["a"], "label": None}}
    said = texts(tmp_path / "rows.jsonl", arc, mmlu, bare, torn)
    assert said == ["Why?\n1. so\n2. no", "What?\nA. x\nB. y", "Who?", "When?"]


def test_the_first_of_several_turns_is_asked(tmp_path: Path) -> None:
    assert texts(tmp_path / "rows.jsonl", {"turns": ["First.", "Second."]}) == ["First."]


def test_prompts_are_taken_evenly(tmp_path: Path) -> None:
    rows = [{"prompt": str(number)} for number in range(10)]
    assert texts(tmp_path / "rows.jsonl", *rows, most=3) == ["0", "3", "6"]
    assert texts(tmp_path / "rows.jsonl", *rows, most=6) == ["0", "1", "3", "5", "6", "8"]
    assert len(texts(tmp_path / "rows.jsonl", *rows, most=20)) == 10


@pytest.mark.parametrize("text", ["gsm8k.jsonl", "openai/gsm8k,subset=main", "math=", ""])
def test_a_benchmark_without_a_domain_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has no domain"):
        Benchmark.parse(text)


def test_an_empty_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        texts(tmp_path / "rows.jsonl")


def test_the_paper_s_benchmarks_cover_its_five_domains() -> None:
    benchmarks = benchmarks_of(["paper"])
    assert {benchmark.domain for benchmark in benchmarks} == {"knowledge", "math", "code", "chat", "safety"}
    assert all(benchmark.source.on_hub for benchmark in benchmarks)
    assert len({benchmark.name for benchmark in benchmarks}) == len(NAMED["paper"])
    assert benchmarks_of(["paper", "math=a.jsonl"])[-1].name == "a"
