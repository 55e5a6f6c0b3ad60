"""Files and folders are there whole or not at all, and what the system refuses is said in one sentence."""

from pathlib import Path

import pytest

from foresay.foundation.errors import ArtefactError, DataError, in_words
from foresay.foundation.files import beside, check_output, check_outside, install, made_once, remove_folder, replacing


class KilledError(Exception):
    pass


def killed(out: Path) -> None:
    """A writer of `out` that is ended before it is done."""
    with replacing(out, overwrite=True) as fresh:
        (fresh / "a").write_text("3")
        raise KilledError


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", [{}, {"old": "1", "a": "2"}], ids=["new", "old"])
def test_a_folder_is_replaced_whole(before: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    if before:
        out.mkdir()
    for name, text in before.items():
        (out / name).write_text(text)
    with pytest.raises(KilledError):
        killed(out)
    assert content(tmp_path) == {f"out/{name}": text for name, text in before.items()}
    with replacing(out, overwrite=True) as fresh:
        (fresh / "deep").mkdir()
        (fresh / "deep" / "a").write_text("3")
    assert content(tmp_path) == {"out/deep/a": "3"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_in_one_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(ArtefactError, match=r"deep/out cannot be made, because .* may not be written; give another"):
        check_output(tmp_path / "deep" / "out", overwrite=False)


@pytest.mark.parametrize("below", ["", "deep/down"])
@pytest.mark.parametrize(("variable", "whose"), [("PWD", "the folder that you are in"), ("HOME", "your home folder")])
def test_the_folder_one_is_in_is_never_replaced(
    variable: str, whose: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out" / below
    place.mkdir(parents=True)
    if variable == "HOME":
        monkeypatch.setenv("HOME", str(place))
    else:
        monkeypatch.chdir(place)
    with pytest.raises(
        ArtefactError, match=rf"out would be replaced whole and is or holds {whose}; give a folder of its"
    ):
        check_output(tmp_path / "out", overwrite=True)
    check_output(tmp_path / "other", overwrite=True)


def test_a_folder_among_what_is_read_as_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    for folder in ("data/out", "link/deep/out", "data"):
        with pytest.raises(ArtefactError, match=r"lies in .*data, which is read as data; give a folder outside of it"):
            check_outside(tmp_path / folder, [tmp_path / "data", "owner/name"])
    check_outside(tmp_path / "out", [tmp_path / "data", "owner/name"])


def test_a_folder_that_cannot_take_the_name_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", Path.rename
    out.mkdir()
    (out / "old").write_text("1")

    def refuse(path: Path, target: Path) -> Path:
        if path.name.startswith(".out.") and not path.name.endswith(".old") and target == out:
            raise OSError("no")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with beside(out) as fresh:
        (fresh / "new").write_text("2")
        with pytest.raises(OSError, match="no"):
            install(fresh, out)
    assert content(tmp_path) == {"out/old": "1"}


def test_of_two_that_make_a_folder_the_first_wins(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def make(fresh: Path) -> None:
        made_once(out, lambda first: (first / "a").write_text("first") and None)
        (fresh / "a").write_text("second")

    assert content(made_once(out, make)) == {"a": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_removed_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "a").mkdir(parents=True)
    remove_folder(folder)
    remove_folder(folder)
    assert not list(tmp_path.iterdir())


def test_what_is_refused_is_said_in_words(tmp_path: Path) -> None:
    message = r"^it cannot be read \(.*No such file.*\); restore it$"
    with pytest.raises(DataError, match=message), in_words(DataError, "it cannot be read", "restore it"):
        (tmp_path / "none").read_text()
    with pytest.raises(ArtefactError, match=r"^a \(first\); b$"), in_words(ArtefactError, "a", "b", ValueError):
        raise ValueError("first\nsecond")
    with pytest.raises(KeyError), in_words(ArtefactError, "a", "b"):
        raise KeyError
