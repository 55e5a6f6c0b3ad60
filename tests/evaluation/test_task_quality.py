"""Quality beside the base, in lm-evaluation-harness, on local tasks."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from foresay.cli.main import main
from foresay.decoding.config import DecodeConfig
from foresay.decoding.sampling import chooser as choose
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_greedy
from foresay.evaluation.config import HarnessConfig
from foresay.evaluation.task_quality import compare
from foresay.foundation.errors import ConfigError, DataError
from foresay.model import MultiTokenModel

CHOICE = """
task: toy_choice
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}} A:"
doc_to_target: 0
doc_to_choice: ["one", "two"]
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITE = """
task: toy_write
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (the extra `eval`)")
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two tasks on five questions."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    questions = ["What is 2 + 3?", "Tom has 4 apples.", "Once upon a time", "def add(a, b):", "Hi"]
    rows.write_text("".join(f"{json.dumps({'question': text, 'answer': '5'})}\n" for text in questions))
    for name, text in (("choice", CHOICE), ("write", WRITE)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("ROWS", str(rows)))
    return tmp_path


def test_both_give_the_same_strings_and_scores(nano: MultiTokenModel, tasks: Path) -> None:
    found = compare(nano, HarnessConfig(("toy_choice", "toy_write"), tasks, task_batch_size=3), DecodeConfig())
    assert [(task.task, task.kind, task.documents, task.identical) for task in found.tasks] == [
        ("toy_choice", "multiple_choice", 5, 5),
        ("toy_write", "generate_until", 5, 5),
    ]
    assert [set(task.base) for task in found.tasks] == [{"acc", "acc_norm"}, {"exact_match"}]
    assert found.sentence == (
        "2 of 2 tasks have the base's scores to the digit; 5 of 5 generated answers are the base's own."
    )


def test_the_decoder_is_what_runs_and_a_broken_one_is_seen(
    nano: MultiTokenModel, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_best(logits: object, asked: DraftsToVerify) -> Verification:
        return verify_greedy(logits.scatter(-1, logits.topk(1).indices, -1e9), asked)  # type: ignore[attr-defined]

    monkeypatch.setattr(choose, "verify_greedy", second_best)
    found = compare(nano, HarnessConfig(("toy_write",), tasks, limit=3), DecodeConfig())
    assert [(task.documents, task.identical) for task in found.tasks] == [(3, 0)]
    assert found.sentence.endswith("0 of 3 generated answers are the base's own.")


def test_gated_keeps_its_scores_while_standard_lora_is_scored_as_trained(
    nano: MultiTokenModel, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Say {number}.", "response": "one two " * 9} for number in range(12)]
    (tasks / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    train = "--rank 8 --num-masks 2 --steps 20 --sequences 2 --warmup-steps 0 --learning-rate 1e-1 --max-length 64"
    asked = ["--data", str(tasks / "data.jsonl"), "--out", str(tasks / "out"), "--heldout", "2", "--seeds", "0"]
    scored = ["--tasks", "toy_choice", "--include-path", str(tasks), "--json"]
    assert main(["study", "gate", "nano", *asked, *train.split(), *scored]) == 0
    figures = {figure["name"]: lines for figure, lines in json.loads(capsys.readouterr().out)["figures"]}
    score = {line: [place["median"] for place in at.values()] for line, at in figures["accuracy"].items()}
    base = compare(nano, HarnessConfig(("toy_choice",), tasks), DecodeConfig()).tasks[0].base["acc"]
    assert score["gated"] == [100 * base] * 6
    assert score["standard"][0] == 100 * base
    assert set(score["standard"][1:]) != {100 * base}, "it is the trained one that is scored"


def test_a_task_that_does_not_exist_is_named(nano: MultiTokenModel, tasks: Path) -> None:
    with pytest.raises(ConfigError, match="task 'toy_wrong' does not exist; give a task of lm-evaluation-harness"):
        compare(nano, HarnessConfig(("toy_choice", "toy_wrong"), tasks), DecodeConfig())
    with pytest.raises(ConfigError, match="is no folder"):
        compare(nano, HarnessConfig(("toy_choice",), tasks / "none"), DecodeConfig())


def test_code_is_run_where_it_may_be(nano: MultiTokenModel, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric of HumanEval asks for a word of its own, and says so in a banner."""
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    banner = "#" * 9 + "\nmay run code"
    guard = f"import os\nassert os.environ.get('HF_ALLOW_CODE_EVAL') == '1', {banner!r}\n"
    (tasks / "guarded.py").write_text(guard + "def question(doc):\n    return doc['question']\n")
    text = (tasks / "choice.yaml").read_text().replace("toy_choice", "toy_code")
    (tasks / "code.yaml").write_text(text.replace('"Q: {{question}} A:"', "!function guarded.question"))
    asked = HarnessConfig(("toy_code",), tasks, limit=1)
    with pytest.raises((DataError, AssertionError), match="may run code"):
        compare(nano, asked, DecodeConfig())
    assert compare(nano, replace(asked, run_code=True), DecodeConfig()).tasks[0].documents == 1
    assert os.environ["HF_ALLOW_CODE_EVAL"] == "0", "for this run alone"


def test_data_out_of_reach_are_named(nano: MultiTokenModel, tasks: Path) -> None:
    (tasks / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="tasks toy_choice cannot be run"):
        compare(nano, HarnessConfig(("toy_choice",), tasks), DecodeConfig())


def test_the_harness_finds_our_model_by_name(nano: MultiTokenModel) -> None:
    from lm_eval.api.registry import get_model  # noqa: PLC0415

    from foresay.evaluation.lm_eval_model import ForesayLM  # noqa: PLC0415

    assert get_model("foresay") is ForesayLM


def test_a_result_of_tasks_alone_says_where_it_comes_from(nano: MultiTokenModel, tasks: Path) -> None:
    out = tasks / "quality.json"
    asked = ["--tasks", "toy_choice", "--include-path", str(tasks), "--limit", "1", "--tasks-only"]
    assert main(["eval", "nano", *asked, "--out", str(out)]) == 0
    made = json.loads(out.read_text())["provenance"]
    assert made["settings"]["base"] == "nano"
    assert made["settings"]["harness"]["limit"] == 1
    assert {"versions", "machine", "commit"} <= made.keys()
