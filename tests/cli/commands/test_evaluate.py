"""`foresay eval` at the command line."""

import json

from tests.support.commands import LOADED, SHORT, At, Run, one_object


def test_eval_prints_one_object_and_writes_it(at: At, run: Run) -> None:
    math, safety = (at.file(f'{{"question": "{word}?"}}\n', f"{word}.jsonl") for word in ("two", "kind"))
    out = at.tmp / "eval.json"
    more = ["--benchmarks", f"math={math}", f"safety={safety}", "--masks", "2", "--paper-steps", "3", "--out", out]
    said = run("eval", at.adapter, "--json", *more, *SHORT)
    content = one_object(said)
    assert said.status == 0
    assert [(row["domain"], row["benchmark"], row["masks"]) for row in content["rows"]] == [
        ("math", "two", 2),
        ("safety", "kind", 2),
    ]
    assert json.loads(out.read_text()) == content
    shown = run("eval", at.adapter, *more, *SHORT)
    assert (shown.status, shown.err) == (0, LOADED)
    assert "tokens per step by masks, the first 3 steps" in shown.out
    assert "drafts kept by position" in shown.out


def test_problems_are_answered_with_code_and_counted(at: At, run: Run) -> None:
    rows = [{"text": "Add.", "test_list": [f"assert add({number}, 1)"]} for number in range(3)]
    file = at.file("".join(f"{json.dumps(row)}\n" for row in rows), "tasks.jsonl")
    asked = ["eval", at.adapter, "--tasks-only", "--code", file, "--code-limit", "2", "--code-tokens", "4"]
    said = run(*asked, "--json")
    content = one_object(said)
    assert said.status == 0
    passed = {"tasks.jsonl:1": 0, "tasks.jsonl:2": 0}
    assert [(one["layout"], one["passed"]) for one in content["code"]["results"]] == [
        ("plain", passed),
        ("planned", passed),
    ]
    assert content["provenance"]["settings"]["code"]["code"] == ["tasks.jsonl"]
    assert content["sentence"] == "2 of 2 accelerated answers to problems are plain decoding's own texts."
    shown = run(*asked)
    assert "tasks (2)" in shown.out
    assert "pass@1, %" in shown.out


def test_nothing_to_do_is_refused(at: At, run: Run) -> None:
    said = run("eval", at.adapter, "--tasks-only")
    assert said.status == 2
    assert "give --tasks or --code" in said.err
