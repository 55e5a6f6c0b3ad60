"""Verbs that read a model or results and write something of them: bad use is one sentence here too."""

import pytest

from tests.cli.test_bad_use import Arguments, check_refused
from tests.support.commands import At, Run

REFUSED: dict[str, tuple[Arguments, str]] = {
    **{
        f"export: {name}, which PEFT has no use for": (
            lambda at, more=more: ["export", at.adapter, "--to", "peft", "--out", at.out, *more],
            r"base and dtype are for vLLM \(the LoRA is written as it was saved, and no base is opened\); leave",
        )
        for name, more in {"a base": ["--base", "nano"], "a dtype": ["--dtype", "float16"]}.items()
    },
    "convert: a context, which Meta's files do not hold": (
        lambda at: ["convert", at.adapter, "--to", "meta", "--out", at.out, "--context", "4096"],
        "their files do not say the context; leave out --context",
    ),
    "report: nothing named": (
        lambda at: ["report", "--out", at.tmp / "a.html"],
        r"foresay: what was named \(nothing\) holds no results; give the JSON of foresay check, bench",
    ),
    "report: a folder that is not there": (
        lambda at: ["report", at.tmp / "gone", "--out", at.tmp / "a.html"],
        r"gone does not exist; give a file with the JSON of a verb, or a folder of them",
    ),
    "report: a folder of an interrupted run": (
        lambda at: ["report", at.file("", "bench.json").parent, "--out", at.tmp / "a.html"],
        r"holds no results \(.*bench\.json: no JSON in it\); give the JSON of foresay check, bench",
    ),
    "publish: a licence that is none": (
        lambda at: ["publish", at.adapter, "me/adapter", "--licence", "MIT: or so", "--dry-run"],
        r"'MIT: or so' is no licence as the hub names them; give a name of small letters, digits, \., - and \+,",
    ),
    "publish: a base that is no hub id": (
        lambda at: ["publish", at.adapter, "me/adapter", "--base-id", "my base", "--dry-run"],
        r"'my base' is no hub id, so nobody else can load it; give USER/NAME of the base \(--base-id\)",
    ),
    "publish: while offline": (
        lambda at: ["publish", at.adapter, "me/adapter"],
        r"me/adapter could not be written on the hub \(HF_HUB_OFFLINE .*\); unset it, or see what would go there with",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence(case: str, at: At, run: Run) -> None:
    arguments, message = REFUSED[case]
    check_refused(arguments(at), message, at, run)
