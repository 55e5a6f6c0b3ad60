"""Options that several commands share."""

import json

import pytest

from foresay.cli.commands.options import filled
from foresay.data.prompts import Prompt, first_of_each_domain
from foresay.evaluation.config import CheckConfig
from tests.support.commands import SHORT, At, Run


def test_full_leaves_alone_what_was_given() -> None:
    assert filled(CheckConfig(), max_new_tokens=128, shift=0.05) == CheckConfig(max_new_tokens=128, shift=0.05)
    given = CheckConfig(max_new_tokens=256, shift=0.02)
    assert filled(given, max_new_tokens=128, shift=0.05) == given


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--per-domain", "-1"], "per_domain is -1"),
        (["--max-new-tokens", "-3"], "max_new_tokens is -3"),
        (["--shift", "-0.1"], "shift is -0.1"),
    ],
    ids=str,
)
def test_negative_numbers_are_refused(flags: list[str], message: str, at: At, run: Run) -> None:
    said = run("check", at.adapter, *flags)
    assert (said.status, said.out) == (2, "")
    assert message in said.err


def test_per_domain_counts_in_a_file_too(at: At, run: Run) -> None:
    rows = [{"prompt": f"Say {index}.", "domain": "abba"[index]} for index in range(4)]
    prompts = at.file("\n".join(map(json.dumps, rows)))
    flags = ["--prompts", prompts, "--per-domain", "1", "--temperature", "0", "--layouts", "linear", "--json", *SHORT]
    assert json.loads(run("check", at.adapter, *flags).out)["prompts"] == 2


def test_the_first_of_each_domain_keep_their_order() -> None:
    prompts = [Prompt((number,), domain, "") for number, domain in enumerate("abbacb")]
    assert [prompt.ids for prompt in first_of_each_domain(prompts, 2)] == [(0,), (1,), (2,), (3,), (4,)]
