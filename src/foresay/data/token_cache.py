"""Tokenised data on disk: made once for each data, tokenizer, template and setting, then read in place."""

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from foresay.data.encoder import Encoder
from foresay.data.example import Example, Examples
from foresay.foundation.errors import DataError, in_words
from foresay.foundation.files import cache_folder, made_once
from foresay.foundation.hashes import file_hash, sha256

MODULES = ("records", "compressed", "source", "example", "columns", "chat", "encoder")
CODE = [Path(__file__).with_name(f"{module}.py") for module in MODULES]
"""What a row becomes is written here: another text, another cache."""


class TokenStore(Examples):
    """Examples in a folder, mapped into memory: what is not asked for is not read."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self._ids = np.memmap(folder / "ids.bin", np.int32, mode="r")
        self._answer = np.memmap(folder / "answer.bin", np.bool_, mode="r")
        self._ends = np.load(folder / "ends.npy")
        self._domains = np.load(folder / "domains.npy")

    def __len__(self) -> int:
        return len(self._ends)

    def at(self, place: int) -> Example:
        """The example there, read from disk."""
        start, end = (int(self._ends[place - 1]) if place else 0), int(self._ends[place])
        domain = self.facts["domains"][self._domains[place]]
        return Example(tuple(self._ids[start:end].tolist()), tuple(self._answer[start:end].tolist()), domain)


def key(described: dict[str, Any], encoder: Encoder) -> str:
    """What tokenised data are known by; `described` names the content of the source."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    facts = {
        "code": [file_hash(path) for path in CODE],
        "transformers": metadata.version("transformers"),
        "data": described,
        "tokenizer": sorted(encoder.tokenizer.get_vocab().items()) if backend is None else backend.to_str(),
        "special": str(encoder.tokenizer.special_tokens_map),
        "template": encoder.tokenizer.chat_template,
        "max_length": encoder.max_length,
        "stops": sorted(encoder.stops),
        "vocabulary": encoder.vocabulary,
    }
    return sha256([json.dumps(facts, default=str)])[:24]


def cached(name: str, make: Callable[[], Iterable[Example]], facts: Callable[[], dict[str, Any]]) -> TokenStore:
    """The examples called `name`: those on disk, or those that `make` yields, with `facts` asked for afterwards.

    Written under a temporary name and renamed, so that another process never sees half of them. Raises DataError.
    """
    folder = cache_folder() / "tokens" / name
    with in_words(DataError, f"{folder} could not be written", "set FORESAY_CACHE to another folder"):
        made_once(folder, lambda fresh: _write(fresh, make(), facts))
    return TokenStore(folder)


def _write(folder: Path, examples: Iterable[Example], facts: Callable[[], dict[str, Any]]) -> None:
    ends: list[int] = []
    labels: list[int] = []
    domains: dict[str, int] = {}
    with ExitStack() as stack:
        ids, answer = (stack.enter_context((folder / name).open("wb")) for name in ("ids.bin", "answer.bin"))
        for example in examples:
            ids.write(np.array(example.ids, np.int32).tobytes())
            answer.write(np.array(example.answer, np.bool_).tobytes())
            ends.append((ends[-1] if ends else 0) + len(example.ids))
            labels.append(domains.setdefault(example.domain, len(domains)))
    np.save(folder / "ends.npy", np.array(ends, np.int64))
    np.save(folder / "domains.npy", np.array(labels, np.int32))
    (folder / "facts.json").write_text(json.dumps({"domains": list(domains)} | facts()), encoding="utf-8")
