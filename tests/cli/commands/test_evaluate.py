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
