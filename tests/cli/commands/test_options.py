"""Options that several commands share."""

import json

import pytest

from foresay.cli.commands import VERBS
from foresay.cli.commands.options import filled
from foresay.cli.given import Given
from foresay.data.prompts import Prompt, first_of_each_domain
from foresay.evaluation.config import BenchConfig, CheckConfig
from tests.support.commands import SHORT, At, Run


def test_full_leaves_alone_what_was_given() -> None:
    full = {"max_new_tokens": 128, "shift": 0.05}
    assert filled(CheckConfig(), Given(), **full) == CheckConfig(max_new_tokens=128, shift=0.05)
    given = CheckConfig(max_new_tokens=256)
    assert filled(given, Given.on(["--max-new-tokens", "256"]), **full) == CheckConfig(max_new_tokens=256, shift=0.05)


@pytest.mark.parametrize("kind", [BenchConfig, CheckConfig])
def test_a_default_that_was_given_stands(kind: type[BenchConfig] | type[CheckConfig]) -> None:
    default = kind().max_new_tokens
    for option in (["--max-new-tokens", str(default)], [f"--max_new_tokens={default}"]):
        assert filled(kind(), Given.on(["bench", *option]), max_new_tokens=128).max_new_tokens == default != 128


@pytest.mark.parametrize("verb", ["bench", "check"])
def test_commands_know_what_was_given(verb: str, at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Given] = []
    kind = VERBS[verb]
    monkeypatch.setattr(kind, "run", lambda command: seen.append(command.given) or 0)
    run(verb, at.adapter, "--full", "--max-new-tokens", "48")
    assert seen == [Given(frozenset({"full", "max_new_tokens"}))]


def test_a_settings_file_gives_no_options() -> None:
    assert "rank" not in Given.on(["train", "nano", "--config", "a.yaml", "--", "--rank"])
    assert "train_masks" in Given.on(["train", "--no-train-masks"])


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
