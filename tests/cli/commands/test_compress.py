"""`foresay compress` at the command line."""

import pytest

from tests.support.commands import LOADED, SHORT, At, Run, contents, one_object


def test_compress_makes_a_smaller_model_that_says_the_same(at: At, run: Run) -> None:
    prompts, small = at.file('{"prompt": "Say 3."}\n'), at.tmp / "small"
    said = run("compress", at.adapter, "--rank", "1", "--out", small, "--prompts", prompts, "--json")
    content = one_object(said)
    assert (said.status, said.err, content["rank"], content["dtype"]) == (0, LOADED, 1, "float32")
    assert one_object(run("info", small, "--json"))["settings"]["rank"] == 1
    assert run("generate", small, "Hi", *SHORT).out == run("generate", at.adapter, "Hi", *SHORT).out
    again = run("compress", at.adapter, "--rank", "1", "--out", small, "--prompts", prompts)
    assert (again.status, again.out) == (2, "")
    assert "--overwrite" in again.err


@pytest.mark.parametrize("rank", [0, 2])
def test_compress_refuses_a_rank_that_is_not_smaller(rank: int, at: At, run: Run) -> None:
    said = run("compress", at.adapter, "--rank", rank, "--out", at.tmp / "small")
    assert (said.status, said.out) == (2, "")
    assert f"rank {rank} was asked for and the adapter has 2; give 1 to 1" in said.err
    assert contents(at.tmp) == {}
