"""Hashes are stored: what they are of must not change."""

from pathlib import Path

import torch

from foresay.data.token_cache import TokenStore
from foresay.foundation.hashes import file_hash, json_hash, sha256, short_hash
from foresay.models.artefact.fingerprint import weights_hash

SAVED = Path(__file__).parents[1] / "support" / "saved"


def test_known_values(tmp_path: Path) -> None:
    whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, of "abc"
    (tmp_path / "abc").write_text("abc")
    assert sha256(["a", b"b", memoryview(b"c")]) == file_hash(tmp_path / "abc") == whole
    assert short_hash("ab", b"c") == whole[:16]
    assert json_hash({"b": [1], "a": None}) == short_hash('{"a": null, "b": [1]}')


def test_stored_hashes_stay(tmp_path: Path) -> None:
    """As commit 3f01793 made them."""
    weights = {"a": torch.arange(200.0).reshape(2, 100), "b": torch.tensor(0.5)}
    assert weights_hash(weights) == "9b873367fe86d310"
    assert TokenStore(SAVED / "tokens").content == {"examples": 3, "sha256": "e5e455d1d15437c0"}
