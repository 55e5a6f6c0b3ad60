"""`foresay advise` at the command line."""

from tests.support.commands import LOADED, At, Run, one_object


def test_advise_prints_one_object(at: At, run: Run) -> None:
    more = ["--batch-sizes", "1", "--acceptance", "0.6", "0.3", "--num-masks", "2", "--rank", "2", "--max-length", "32"]
    more += ["--sequences", "2", "--anchors", "2"]
    content = one_object(run("advise", "nano", "--json", *more))
    assert content["acceptance"] == {"given": [0.6, 0.3]}
    assert [offer["domain"] for offer in content["offers"]] == ["given"]
    assert content["offers"][0]["best"] in [
        " ".join([entry["entry"]["layout"], *[str(entry["entry"]["masks"])] * bool(entry["entry"]["masks"])])
        for entry in content["offers"][0]["entries"]
    ]
    assert content["training"]["steps"] == 500
    assert content["provenance"]["settings"]["dtype"] == "float32", "nano's checkpoint is in bfloat16"
    said = run("advise", "nano", *more)
    assert (said.status, said.err) == (0, LOADED)
    assert "expected tokens/s, batch 1, 128 tokens cached" in said.out
    assert "Training takes" in said.out
