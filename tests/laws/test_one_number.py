"""Training, `bench`, `check`, `eval` and a server tell one and the same number for the same prompts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foresay.cli.main import main
from foresay.model import MultiTokenModel

PROMPTS = [
    ("count", "Count to 3."),
    ("count", "Count from one to twenty, please, and then back again to one."),
    ("count", "Count."),
    ("say", "Say 3."),
    ("say", "Once upon a time there was a"),
]
DATA = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n + 2)))} for n in range(24)]
LENGTH = ["--max-new-tokens", "24"]


def jsonl(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def rates_of_a_server(folder: str) -> dict[str, float]:
    """Tokens per step by domain, from the usage of one answer after the other."""
    pytest.importorskip("fastapi")
    from tests.support.served import served  # noqa: PLC0415 (an extra)

    tokens, steps = Counter[str](), Counter[str]()
    with served(MultiTokenModel.from_pretrained(folder)) as server:
        for domain, text in PROMPTS:
            asked = [{"role": "user", "content": text}]
            said = server.client.chat.completions.create(
                model="nano", messages=asked, temperature=0, max_completion_tokens=int(LENGTH[1])
            )
            tokens[domain] += said.usage.completion_tokens
            steps[domain] += said.usage.model_dump()["steps"]
    return {domain: tokens[domain] / steps[domain] for domain in tokens}


@pytest.mark.parametrize(("save_dtype", "keep"), [("float32", "best"), ("bfloat16", "last")])
def test_one_number(save_dtype: str, keep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = jsonl(tmp_path / "data.jsonl", DATA), str(tmp_path / "out")
    prompts = jsonl(tmp_path / "prompts.jsonl", [{"domain": domain, "prompt": text} for domain, text in PROMPTS])
    train = ["--steps", "10", "--eval-every", "5", "--learning-rate", "2e-2", "--warmup-steps", "0", "--rank", "4"]
    small = ["--num-masks", "3", "--eval-tokens", "24", "--eval-batch", "2", "--tracker", "none"]
    where = ["train", "nano", "--data", data, "--out", out, "--prompts", prompts]
    trained = said(capsys, *where, *train, *small, "--save-dtype", save_dtype, "--keep", keep)
    check = ["check", out, "--prompts", prompts, "--layouts", "quadratic", "--temperature", "0", *LENGTH]
    bench = ["bench", out, "--prompts", prompts, "--layouts", "quadratic", "--repeats", "1", *LENGTH]
    evaluate = ["eval", out, "--prompts", prompts, "--masks", "3", *LENGTH]
    results = [result for result in said(capsys, *bench)["results"] if result["decoder"] == "quadratic"]

    rates = trained["tokens_per_step"]
    assert max(rates.values()) > 1, "something is accepted"
    [count] = said(capsys, *check)["counts"]
    assert count["domains_tokens_per_step"] == rates
    assert {result["domain"]: result["tokens_per_step"] for result in results} == rates
    assert {row["domain"]: row["whole"]["value"] for row in said(capsys, *evaluate)["domains"]} == rates
    assert rates_of_a_server(out) == rates


def test_acceptance_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a single domain, which is what `bench` counts it for; and it is what the artefact keeps."""
    data, out = jsonl(tmp_path / "data.jsonl", DATA), tmp_path / "out"
    prompts = jsonl(tmp_path / "prompts.jsonl", [{"prompt": text} for _, text in PROMPTS])
    train = ["--steps", "10", "--learning-rate", "2e-2", "--warmup-steps", "0", "--rank", "4", "--num-masks", "3"]
    where = ["train", "nano", "--data", data, "--out", str(out), "--prompts", prompts]
    trained = said(capsys, *where, *train, "--eval-tokens", "24", "--tracker", "none")
    bench = ["bench", str(out), "--prompts", prompts, "--layouts", "quadratic", "--repeats", "1", *LENGTH]
    [result] = [result for result in said(capsys, *bench)["results"] if result["decoder"] == "quadratic"]
    shares = [entry["unconditional"] for entry in trained["acceptance"]]
    assert shares[0] > 0
    assert result["acceptance_per_position"] == shares
    kept = json.loads((out / "foresay.json").read_text())
    assert kept["acceptance"] == [round(share, 4) for share in shares]
    assert kept["provenance"]["settings"]["measured"]["acceptance"] == trained["acceptance"]
