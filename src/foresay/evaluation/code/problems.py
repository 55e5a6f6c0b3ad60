"""Problems with tests, as HumanEval (Chen et al. 2021) and MBPP (Austin et al. 2021) write them.

Each is asked in two ways: as a text to go on with, or as a user's message. The texts are those of the
bigcode-evaluation-harness: HumanEval's prompt without the space at its end, and for MBPP a docstring with the task and
its first test (Fried et al. 2022), where an answer ends at the first stop string.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from foresay.data.records import Record
from foresay.data.source import Source
from foresay.foundation.errors import DataError

STOPS = ("\nclass", "\nprint", "\nif", "\n```")
HUMANEVAL_STOPS = (*STOPS, "\ndef", "\n#", "\n@")
MBPP_STOPS = (*STOPS, "\nassert", '\n"""')
BLOCK = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
"""Code of a chat's answer, between fences."""
FUNCTION = re.compile(r"^def (\w+)", re.MULTILINE)
CALLED = re.compile(r"^check\(", re.MULTILINE)
ASK = "Answer with the whole code in one Python code block."


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem."""

    name: str
    text: str
    """To go on with."""
    question: str
    """To be asked in a chat."""
    tests: str
    """Python source that raises where the code before it is wrong."""
    before: str = ""
    """What stands before the code that a chat's answer gives: imports, other functions."""
    stops: tuple[str, ...] = STOPS
    """Where a text that goes on is over."""

    def ends(self, answer: str, chat: bool) -> bool:
        """Whether what follows would not be used."""
        return BLOCK.search(answer) is not None if chat else any(stop in answer for stop in self.stops)

    def program(self, answer: str, chat: bool) -> str:
        """The answer's code with the tests after it; a chat's answer without a block of code is taken as code."""
        if chat:
            block = BLOCK.search(answer)
            code = self.before + (answer if block is None else block[1])
        else:
            ends = [place for stop in self.stops if (place := answer.find(stop)) >= 0]
            code = self.text + answer[: min(ends, default=None)]
        return f"{code}\n{self.tests}\n"


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Some problems of one source."""

    name: str
    problems: tuple[Problem, ...]


def read_problems(text: str, most: int = 0) -> ProblemSet:
    """The first `most` problems (0: all) of a file, a folder or a hub id, with settings as `Source.parse` reads them.

    Raises DataError for a row that is no problem, with its place, ConfigError for an unknown setting.
    """
    source = Source.parse(text)
    problems = [_problem(record) for record in source.records()]
    if not problems:
        raise DataError(f"{source.name} has no rows; give problems with tests, as HumanEval and MBPP write them")
    twice = [name for name, count in Counter(problem.name for problem in problems).items() if count > 1]
    if twice:
        raise DataError(f"{source.name} has task_id {twice[0]} more than once; give every problem its own")
    path = Path(source.name)
    return ProblemSet(path.name if source.on_hub else path.stem, tuple(problems[: most or None]))


def _name(record: Record) -> str:
    """Its own, or its file and line."""
    return str(record.row.get("task_id", Path(record.place).name))


def _problem(record: Record) -> Problem:
    row = record.row
    if isinstance(row.get("test_list"), list) and isinstance(row.get("text", row.get("prompt")), str):
        return _mbpp(record)
    if isinstance(row.get("prompt"), str) and isinstance(row.get("test"), str):
        return _humaneval(record)
    raise DataError(
        f"{record.place} has columns {', '.join(sorted(row)) or 'none'}; needed are prompt and test (HumanEval), or "
        "text and test_list (MBPP)"
    )


def _humaneval(record: Record) -> Problem:
    prompt, test = record.row["prompt"], record.row["test"]
    functions = FUNCTION.findall(prompt)
    entry = record.row.get("entry_point") or (functions[-1] if functions else "")
    begins = prompt.rfind(f"def {entry}")
    if not entry or begins < 0:
        raise DataError(f"{record.place} has a prompt without the function that is tested; mend or remove the row")
    return Problem(
        name=_name(record),
        text=prompt.rstrip(),
        question=f"Complete this Python function. {ASK}\n\n```python\n{prompt.rstrip()}\n```",
        tests=test if CALLED.search(test) else f"{test}\ncheck({entry})",
        before=prompt[:begins],
        stops=HUMANEVAL_STOPS,
    )


def _mbpp(record: Record) -> Problem:
    row = record.row
    task, tests = row["text"] if "text" in row else row["prompt"], [*map(str, row["test_list"])]
    if not tests:
        raise DataError(f"{record.place} has no tests, so any code would pass; mend or remove the row")
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    return Problem(
        name=_name(record),
        text=f'"""\n{task}\n{tests[0]}\n"""\n',
        question=f"{task} {ASK} It must pass these tests:\n\n" + "\n".join(tests),
        tests="\n".join([setup, *tests]),
        stops=MBPP_STOPS,
    )
