"""Write tasks of lm-evaluation-harness over the local sets in FORESAY_DATA, for a machine without a network.

python benchmarks/local_tasks.py --out build/tasks
foresay eval nano --tasks local_arc local_gsm8k local_code local_chat --include-path build/tasks --tasks-only
foresay eval nano --tasks local_mmlu --include-path build/tasks --tasks-only

The hub's own tasks need no such file: `foresay eval MODEL --tasks arc_challenge gsm8k`. The base is compared with the
accelerated model, so that the answers which the files of chat lack are not missed.
"""

import os
from pathlib import Path

import tyro
import yaml

WRITTEN = {
    "local_gsm8k": ("math/gsm8k_test.jsonl", "Question: {{question}}\nAnswer:", "{{answer.split('#### ')[-1]}}"),
    "local_code": ("code/mbpp.jsonl", "{{text}}\n", "{{code}}"),
    "local_chat": ("chat/ifeval.jsonl", "{{prompt}}\n", "{{prompt}}"),
}
"""File, prompt and target of the tasks whose answers are written."""


def task(name: str, path: Path) -> dict[str, object]:
    """What any task says."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
    }


def written(name: str, data: Path, tokens: int) -> dict[str, object]:
    """A task whose answers are generated up to `tokens` tokens."""
    file, prompt, target = WRITTEN[name]
    return task(name, data / file) | {
        "output_type": "generate_until",
        "doc_to_text": prompt,
        "doc_to_target": target,
        "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": tokens, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }


def arc(data: Path) -> dict[str, object]:
    """ARC-Challenge, as the harness has it: log-likelihoods of the choices."""
    return task("local_arc", data / "knowledge/arc_challenge_test.jsonl") | {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }


def mmlu(data: Path) -> dict[str, object]:
    """MMLU's validation questions of all subjects, as the harness has them: log-likelihoods of the letters."""
    files, columns = str(data / "knowledge/mmlu/val/*.csv"), ["question", *"ABCD", "answer"]
    asked = "{{question}}\nA. {{A}}\nB. {{B}}\nC. {{C}}\nD. {{D}}\nAnswer:"
    return task("local_mmlu", Path(files)) | {
        "dataset_path": "csv",
        "dataset_kwargs": {"data_files": {"test": files}, "header": None, "names": columns},
        "output_type": "multiple_choice",
        "doc_to_text": asked,
        "doc_to_target": "{{'ABCD'.index(answer)}}",
        "doc_to_choice": list("ABCD"),
        "metric_list": [{"metric": "acc"}],
    }


def main(out: Path, tokens: int = 128) -> None:
    """Write a YAML file for each task into a folder.

    Args:
        out: The folder.
        tokens: Most tokens of a written answer.
    """
    data = Path(os.environ["FORESAY_DATA"]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for content in (arc(data), mmlu(data), *(written(name, data, tokens) for name in WRITTEN)):
        (out / f"{content['task']}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


if __name__ == "__main__":
    tyro.cli(main)
