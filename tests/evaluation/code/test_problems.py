"""Rows of HumanEval and MBPP as problems, and answers as programs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from foresay.evaluation.code.problems import Problem, read_problems
from foresay.evaluation.code.sandbox import Limits, run_program
from foresay.foundation.errors import ConfigError, DataError

PROMPT = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef root(x):\n    """The root of half of x.\n    """\n'
TEST = "def check(candidate):\n    assert candidate(8) == 2\n"
HUMANEVAL = {"task_id": "T/1", "prompt": PROMPT, "test": TEST, "entry_point": "root"}
CALLS = {"prompt": PROMPT, "test": f"{TEST}\ncheck(root)"}
MBPP = {
    "task_id": 3,
    "text": "Write a function to add.",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
}
SANITIZED = {
    "prompt": "Write a function to add.",
    "test_imports": ["import math"],
    "test_list": ["assert add(1, 2) == 3"],
}
BODY = "\n    return math.sqrt(half(x))\n"
WHOLE = f"Sure!\n```python\ndef root(x):{BODY}```\nIt takes the root."
LIMITS = Limits(cpu_seconds=2)


def problem(path: Path, row: dict[str, Any]) -> Problem:
    file = path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return read_problems(str(file)).problems[0]


def passes(one: Problem, answer: str, chat: bool = False) -> bool:
    return run_program(one.program(answer, chat), LIMITS).verdict == "passed"


@pytest.mark.parametrize("row", [HUMANEVAL, CALLS], ids=["the test is to be called", "it calls itself"])
def test_a_function_is_completed_or_written_whole(tmp_path: Path, row: dict[str, Any]) -> None:
    one = problem(tmp_path, row)
    assert one.text == PROMPT.rstrip()
    assert passes(one, BODY)
    assert passes(one, f"{BODY}\n\nprint(root('what follows is no part of it'))")
    assert not passes(one, BODY.replace("half(x)", "x"))
    assert passes(one, WHOLE, chat=True)
    assert not passes(one, WHOLE.replace("half(x)", "x"), chat=True)
    assert passes(one, f"def root(x):{BODY}", chat=True)


@pytest.mark.parametrize("row", [MBPP, SANITIZED])
def test_a_task_is_answered_and_tested(tmp_path: Path, row: dict[str, Any]) -> None:
    one = problem(tmp_path, row)
    assert one.text == '"""\nWrite a function to add.\nassert add(1, 2) == 3\n"""\n'
    assert passes(one, "def add(a, b):\n    return a + b\n\nassert add(1, 2) == 'cut off'")
    assert not passes(one, "def add(a, b):\n    return 3" if row is MBPP else "def add(a, b):\n    return a")
    assert passes(one, "```\ndef add(a, b):\n    return a + b\n```", chat=True)
    assert "assert add(1, 2) == 3" in one.question


def test_every_test_counts(tmp_path: Path) -> None:
    assert not passes(problem(tmp_path, MBPP), "def add(a, b):\n    return 3")


def test_an_answer_ends_where_nothing_more_is_used(tmp_path: Path) -> None:
    one = problem(tmp_path, HUMANEVAL)
    assert not one.ends("\n    x = 1\n    # half", chat=False)
    assert one.ends("\n    x = 1\n#", chat=False)
    assert not one.ends("```python\ndef root(x):\n", chat=True)
    assert one.ends(WHOLE[: WHOLE.rindex("\nIt")], chat=True)


def test_a_set_has_a_name_and_its_first_problems(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text("".join(f"{json.dumps(MBPP | {'task_id': number})}\n" for number in range(5)))
    few, all_of_them = read_problems(str(file), 2), read_problems(f"{file},rows=4")
    assert (few.name, [one.name for one in few.problems]) == ("some", ["0", "1"])
    assert len(all_of_them.problems) == 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Why?"}, "has columns question; needed are prompt and test"),
        ({"text": "Write.", "test_list": []}, "has no tests, so any code would pass"),
        ({"prompt": "# no function", "test": TEST}, "has a prompt without the function that is tested"),
        (HUMANEVAL | {"entry_point": "other"}, "has a prompt without the function that is tested"),
    ],
)
def test_a_row_that_is_no_problem_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl:1 {said}"):
        problem(tmp_path, row)


def test_an_empty_file_and_an_unknown_setting_are_named(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match="has no rows"):
        read_problems(str(tmp_path / "none.jsonl"))
    with pytest.raises(ConfigError, match="'shots=3' is not known"):
        read_problems("rows.jsonl,shots=3")


def test_a_problem_has_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(MBPP)}\n" * 2)
    with pytest.raises(DataError, match="task_id 3 more than once"):
        read_problems(str(file))
    assert problem(tmp_path, SANITIZED).name == "rows.jsonl:1"


@pytest.mark.parametrize(("name", "solution"), [("humaneval", "canonical_solution"), ("mbpp", "code")])
def test_the_sets_own_solutions_pass_and_no_answer_fails(name: str, solution: str) -> None:
    if "FORESAY_DATA" not in os.environ:
        pytest.skip("FORESAY_DATA is not set: no development sets")
    file = Path(os.environ["FORESAY_DATA"]) / "code" / f"{name}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    every = 1 if os.environ.get("FORESAY_SLOW_TESTS") else len(rows) // 3
    for one, row in list(zip(read_problems(str(file)).problems, rows, strict=True))[::every]:
        given = one.text[len(one.before) :] + "\n" if name == "humaneval" else ""
        assert passes(one, f"```python\n{given}{row[solution]}\n```", chat=True), one.name
        assert not passes(one, f"```python\n{given}    pass\n```", chat=True), one.name
