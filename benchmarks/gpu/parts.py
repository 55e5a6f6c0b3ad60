"""A large file in parts that may travel one by one, and whole again: every part and the whole are checked by sha256.

    python benchmarks/gpu/parts.py split model.gguf --out parts
    python benchmarks/gpu/parts.py check parts
    python benchmarks/gpu/parts.py join parts --out model.gguf

`split` writes model.gguf.000, model.gguf.001, ... and model.gguf.parts.json, which names them. Exit status 1: a part is
missing or differs.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".parts.json"
MEGABYTE = 1_000_000
BLOCK = 1 << 20


class PartsError(Exception):
    """What is wrong, in one sentence with the cure."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a part of one."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Piece":
        """The piece that lies at `path`."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda: file.read(BLOCK), b""):
                digest.update(block)
        return cls(path.name, path.stat().st_size, digest.hexdigest())

    def fault(self, folder: Path) -> str:
        """Why the piece cannot be used as it lies in `folder`; empty where it can."""
        path = folder / self.name
        if not path.is_file():
            return f"{self.name} is missing"
        return "" if Piece.of(path) == self else f"{self.name} differs from what was split (sha256)"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole file and its parts, in order."""

    whole: Piece
    parts: tuple[Piece, ...]

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest in `folder`. Raises PartsError where there is not exactly one, or it cannot be read."""
        found = sorted(folder.glob(f"*{SUFFIX}"))
        if len(found) != 1:
            raise PartsError(f"{folder} has {len(found)} files *{SUFFIX} and one is needed; split the file again")
        try:
            content = json.loads(found[0].read_text(encoding="utf-8"))
            return cls(Piece(**content["whole"]), tuple(Piece(**part) for part in content["parts"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise PartsError(f"{found[0]} cannot be read ({error}); split the file again") from error

    def faults(self, folder: Path) -> list[str]:
        """What is wrong with the parts in `folder`."""
        return [fault for part in self.parts if (fault := part.fault(folder))]


def split(path: Path, folder: Path, most: int) -> Manifest:
    """Write parts of at most `most` bytes of the file `path`, and their manifest, to `folder`.

    Raises PartsError for a file that is not there or is empty.
    """
    if not path.is_file() or not path.stat().st_size:
        raise PartsError(f"{path} is no file with content; give the file that is to be split")
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    with path.open("rb") as file:
        for number in range(-(-path.stat().st_size // most)):
            part = folder / f"{path.name}.{number:03d}"
            with part.open("wb") as out:
                out.writelines(_blocks(file, most))
            parts.append(Piece.of(part))
    manifest = Manifest(Piece.of(path), tuple(parts))
    (folder / f"{path.name}{SUFFIX}").write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    return manifest


def join(folder: Path, path: Path) -> Manifest:
    """Put the parts in `folder` together as `path`, whole or not at all. Raises PartsError with what is wrong."""
    manifest = Manifest.read(folder)
    if faults := manifest.faults(folder):
        raise PartsError(f"{'; '.join(faults)}; bring these parts again")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.joining")
    try:
        with fresh.open("wb") as out:
            for part in manifest.parts:
                with (folder / part.name).open("rb") as file:
                    out.writelines(_blocks(file, part.bytes))
        if Piece.of(fresh).sha256 != manifest.whole.sha256:
            raise PartsError(f"the parts do not make {manifest.whole.name}, though each is sound; split the file again")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return manifest


def _blocks(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The next `most` bytes of `file`, or what is left of it, in blocks."""
    while most and (block := file.read(min(BLOCK, most))):
        most -= len(block)
        yield block


def main() -> int:
    """Split, join or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    splitting, checking, joining = (verbs.add_parser(verb) for verb in ("split", "check", "join"))
    splitting.add_argument("file", type=Path)
    splitting.add_argument("--out", type=Path, required=True, help="folder for the parts")
    splitting.add_argument("--megabytes", type=int, default=40, help="most megabytes (10^6 bytes) of a part")
    for verb in (checking, joining):
        verb.add_argument("folder", type=Path, help="folder with the parts and their manifest")
    joining.add_argument("--out", type=Path, required=True, help="the whole file")
    given = parser.parse_args()
    if given.verb == "split" and given.megabytes < 1:
        parser.error(f"--megabytes is {given.megabytes}; give at least 1")
    try:
        if given.verb == "split":
            manifest = split(given.file, given.out, given.megabytes * MEGABYTE)
        elif given.verb == "join":
            manifest = join(given.folder, given.out)
        else:
            manifest = Manifest.read(given.folder)
            if faults := manifest.faults(given.folder):
                raise PartsError(f"{'; '.join(faults)}; bring these parts again")
    except (PartsError, OSError) as error:
        print(f"parts: {error}", file=sys.stderr)
        return 1
    whole = manifest.whole
    print(f"{whole.name}: {len(manifest.parts)} parts, {whole.bytes} bytes, sha256 {whole.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
