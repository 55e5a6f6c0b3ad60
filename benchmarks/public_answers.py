"""Data for a comparison of own answers with public text: the same problems, answered by the base and by their sets.

    FORESAY_DATA=... python benchmarks/public_answers.py --own build/smollm2/own.jsonl --out build/public

Takes the rows of GSM8K's training split and of MBPP out of what `foresay data generate` wrote, and writes them to
`own.jsonl`; `public.jsonl` has the same prompts with the answers that these sets come with.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Write both files."""

    own: Path
    """Answers of the base."""
    out: Path
    """Folder for the two files."""

    def run(self) -> None:
        """Both, row by row."""
        data = Path(os.environ["FORESAY_DATA"])
        problems = {row["question"].strip(): row["answer"] for row in rows(data / "math/gsm8k_train.jsonl")}
        exercises = {row["text"].strip(): row["code"] for row in rows(data / "code/mbpp.jsonl")}
        own, public = [], []
        for row in rows(self.own):
            task = row["prompt"].strip()
            answer = problems.get(task) or next((code for text, code in exercises.items() if text in task), None)
            if answer is not None:
                own.append(row)
                public.append({"prompt": row["prompt"], "response": answer, "domain": row["domain"]})
        self.out.mkdir(parents=True, exist_ok=True)
        for name, some in (("own", own), ("public", public)):
            write(self.out / f"{name}.jsonl", some)
        print(json.dumps({"rows": len(own), "math": sum(row["domain"] == "math" for row in own)}))


def rows(path: Path) -> list[dict[str, Any]]:
    """Of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def write(path: Path, some: Iterable[Row]) -> None:
    """As JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(Pair).run()
