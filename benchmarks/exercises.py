"""Write what `smollm2` is fine-tuned on, to see what an adapter of its own base is worth to a fine-tune.

    FORESAY_DATA=data python benchmarks/exercises.py --out build/fine-tune

`train.jsonl` holds MBPP without its test split, asked as `foresay eval --code-prompts chat` asks it and answered with
MBPP's own code; `test.jsonl` the test split, as it is. The fine-tune itself is `foresay pretrain --continued`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import tyro

from foresay.evaluation.code.problems import read_problems

TEST = range(11, 511)
"""Tasks of MBPP's test split (Austin et al. 2021); three of them stand outside of it once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercises:
    """Write both files."""

    out: Path
    """Folder for them."""

    def run(self) -> None:
        """Both, row by row."""
        path = Path(os.environ["FORESAY_DATA"]) / "code/mbpp.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        code = {row["task_id"]: row["code"].replace("\r\n", "\n") for row in rows if row["task_id"] not in TEST}
        learnt = {row["text"] for row in rows if row["task_id"] in code}
        tested = [row for row in rows if row["task_id"] in TEST and row["text"] not in learnt]
        chats = [
            {"prompt": problem.question, "response": f"```python\n{code[int(problem.name)].strip()}\n```"}
            for problem in read_problems(str(path)).problems
            if int(problem.name) in code
        ]
        self.out.mkdir(parents=True, exist_ok=True)
        for name, some in (("train", chats), ("test", tested)):
            (self.out / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in some), encoding="utf-8")
        print(json.dumps({"train": len(chats), "test": len(tested)}))


if __name__ == "__main__":
    tyro.cli(Exercises).run()
