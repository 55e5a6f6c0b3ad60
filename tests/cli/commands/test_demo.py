"""`foresay demo` at the command line."""

from tests.support.commands import At, Run


def test_the_demo_replaces_no_folder_but_its_own(at: At, run: Run) -> None:
    (at.tmp / "thesis").mkdir()
    (at.tmp / "thesis" / "chapter").write_text("1")
    said = run("demo", "--seconds", "1", "--out", at.tmp / "thesis")
    assert said.status == 2
    assert "is not empty" in said.err
    assert (at.tmp / "thesis" / "chapter").read_text() == "1"
