"""Meta's files of a model with several heads: read as an independent forward reads them, and written back."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers import AutoModelForCausalLM

from foresay.cli.main import main
from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.model import MultiTokenModel
from foresay.models.artefact.meta import from_meta, to_meta
from foresay.models.base.untrained import byte_tokenizer
from foresay.models.config import HeadsConfig
from foresay.models.heads.model import HeadsModel
from tests.support.toys import GPT2, LLAMA

TOKENS, DIM, INNER, LAYERS, HEADS, QUERIES, KEYS = 259, 32, 48, 5, 3, 4, 2
THETA, EPS = 5000.0, 1e-4
PARAMS = {
    "dim": DIM,
    "n_layers": LAYERS,
    "n_heads": QUERIES,
    "n_kv_heads": KEYS,
    "vocab_size": -1,
    "multiple_of": 16,
    "norm_eps": EPS,
    "rope_theta": THETA,
    "n_future_tokens": HEADS,
}


def checkpoint() -> dict[str, Tensor]:
    """Random weights under their names."""
    torch.manual_seed(3)
    size = DIM // QUERIES
    shapes = {
        "attention.wq": (DIM, DIM),
        "attention.wk": (KEYS * size, DIM),
        "attention.wv": (KEYS * size, DIM),
        "attention.wo": (DIM, DIM),
        "feed_forward.w1": (INNER, DIM),
        "feed_forward.w2": (DIM, INNER),
        "feed_forward.w3": (INNER, DIM),
        "attention_norm": (DIM,),
        "ffn_norm": (DIM,),
    }
    blocks = [f"layers.{place}" for place in range(LAYERS - HEADS + 1)]
    blocks += [f"extra_heads.{place}" for place in range(HEADS - 1)]
    weights = {f"{block}.{name}.weight": torch.randn(shape) * 0.3 for block in blocks for name, shape in shapes.items()}
    weights |= {"tok_embeddings.weight": torch.randn(TOKENS, DIM), "output.weight": torch.randn(TOKENS, DIM)}
    return weights | {"norm.weight": torch.rand(DIM) + 0.5, "rope.freqs": torch.zeros(size // 2)}


def write(folder: Path, weights: Any, **params: Any) -> Path:
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(PARAMS | params))
    torch.save(weights, folder / "consolidated.pth")
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("meta") / "files", checkpoint())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ours(theirs: Path, tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ours") / "model"
    from_meta(theirs, tokenizer, out, 128, overwrite=False)
    return out


# Their forward, written from the paper's description alone: rotary pairs as complex numbers, side by side.


def norm(states: Tensor, weight: Tensor) -> Tensor:
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + EPS) * weight


def rotated(states: Tensor) -> Tensor:
    """(T, heads, size)."""
    length, _, size = states.shape
    rates = THETA ** -(torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(length).float(), rates)
    pairs = torch.view_as_complex(states.reshape(length, -1, size // 2, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).reshape(states.shape)


def block(states: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    own = {key.removeprefix(name).removesuffix(".weight"): w for key, w in weights.items() if key.startswith(name)}
    length, size = len(states), DIM // QUERIES
    rows = norm(states, own["attention_norm"])
    queries = rotated((rows @ own["attention.wq"].T).view(length, QUERIES, size))
    keys = rotated((rows @ own["attention.wk"].T).view(length, KEYS, size)).repeat_interleave(QUERIES // KEYS, 1)
    values = (rows @ own["attention.wv"].T).view(length, KEYS, size).repeat_interleave(QUERIES // KEYS, 1)
    scores = torch.einsum("qhs,khs->hqk", queries, keys) / math.sqrt(size)
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)
    states = states + torch.einsum("hqk,khs->qhs", scores, values).reshape(length, DIM) @ own["attention.wo"].T
    rows = norm(states, own["ffn_norm"])
    inner = silu(rows @ own["feed_forward.w1"].T) * (rows @ own["feed_forward.w3"].T)
    return states + inner @ own["feed_forward.w2"].T


def all_heads(weights: dict[str, Tensor], ids: Tensor) -> list[Tensor]:
    """Logits (T, V) of every head."""
    trunk = weights["tok_embeddings.weight"][ids]
    for place in range(LAYERS - HEADS):
        trunk = block(trunk, weights, f"layers.{place}.")
    names = [f"layers.{LAYERS - HEADS}.", *(f"extra_heads.{place}." for place in range(HEADS - 1))]
    states = [block(trunk, weights, name) for name in names]
    return [norm(one, weights["norm.weight"]) @ weights["output.weight"].T for one in states]


def test_every_head_says_what_theirs_says(theirs: Path, ours: Path) -> None:
    weights = torch.load(theirs / "consolidated.pth", weights_only=True)
    ids = torch.randint(0, TOKENS, (17,), generator=torch.Generator().manual_seed(1))
    model = MultiTokenModel.from_pretrained(ours).heads_model
    assert isinstance(model, HeadsModel)
    with torch.no_grad():
        points, call = model.points(ids[None], cut=False)
        states = {point.head: point.made for point in points} | dict(model.branches(points[0].made, call))
        for head, wanted in enumerate(all_heads(weights, ids), 1):
            found = model.logits(head, model.tail(states[head]))[0]
            torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4, msg=f"head {head}")
        ordinary = AutoModelForCausalLM.from_pretrained(ours)(ids[None]).logits[0]
    torch.testing.assert_close(ordinary, all_heads(weights, ids)[0], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back(dtype: torch.dtype, tokenizer: str, tmp_path: Path) -> None:
    weights = {name: weight.to(dtype) for name, weight in checkpoint().items()}
    from_meta(write(tmp_path / "files", weights), tokenizer, tmp_path / "ours", 128, overwrite=False)
    assert main(["convert", str(tmp_path / "ours"), "--to", "meta", "--out", str(tmp_path / "back")]) == 0
    back = torch.load(tmp_path / "back/consolidated.pth", weights_only=True)
    del weights["rope.freqs"]
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) and back[name].dtype == dtype for name in weights)
    params = json.loads((tmp_path / "back/params.json").read_text())
    kept = {name: value for name, value in PARAMS.items() if name not in ("multiple_of", "vocab_size")}
    assert params == kept | {"vocab_size": TOKENS}


def test_the_command_makes_a_model_that_drafts(
    theirs: Path, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["convert", str(theirs), "--tokenizer", tokenizer, "--out", out]) == 0
    assert "3 heads" in capsys.readouterr().err
    assert main(["generate", out, "one two", "--max-new-tokens", "8", "--layout", "quadratic"]) == 0
    assert main(["convert", str(theirs), "--tokenizer", tokenizer, "--out", out]) == 2
    assert "is not empty" in capsys.readouterr().err


# Bad input.


def without(name: str) -> dict[str, Tensor]:
    return {key: weight for key, weight in checkpoint().items() if key != name}


@pytest.mark.parametrize(
    ("weights", "params", "message"),
    [
        (
            without("extra_heads.1.ffn_norm.weight"),
            {},
            r"lacks extra_heads\.1\.ffn_norm\.weight; the checkpoint is torn",
        ),
        (checkpoint(), {"n_layers": LAYERS + 1}, r"6 layers of which 3 are heads, and lacks .* and 8 more"),
        (checkpoint(), {"n_future_tokens": 2}, r"of which 2 are heads"),
        (checkpoint() | {"output.weight": torch.zeros(3, 4)}, {}, r"output\.weight has shape \(3, 4\)"),
        (checkpoint() | {"norm.weight": torch.ones(DIM).half()}, {}, "dtypes torch.float16, torch.float32"),
        (checkpoint(), {"n_heads": "four"}, "params.json is torn"),
        (checkpoint(), {"n_heads": 0}, "params.json is torn"),
        (checkpoint(), {"n_heads": 3}, "n_heads is 3, which does not divide the width"),
        (checkpoint(), {"dim": 64}, f"dim is 64 and the weights have {DIM}"),
        (checkpoint(), {"vocab_size": 32000}, "vocab_size is 32000 and the weights have"),
        (checkpoint(), {"quantization_args": {}}, "quantization_args, which foresay does not know"),
        ([1, 2], {}, "is torn or of another layout"),
    ],
)
def test_torn_checkpoints_are_refused(
    weights: Any, params: dict[str, Any], message: str, tokenizer: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtefactError, match=message):
        from_meta(write(tmp_path / "files", weights, **params), tokenizer, tmp_path / "out", 128, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


class Harmful:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit(9)",)


def test_nothing_in_the_file_is_run(tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is torn or of another layout"):
        from_meta(
            write(tmp_path / "files", {"norm.weight": Harmful()}), tokenizer, tmp_path / "out", 128, overwrite=False
        )


def test_cut_and_missing_files_are_refused(tokenizer: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "files", checkpoint())
    path = folder / "consolidated.pth"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ArtefactError, match=r"consolidated\.pth is torn"):
        from_meta(folder, tokenizer, tmp_path / "out", 128, overwrite=False)
    path.rename(folder / "consolidated.00.pth")
    (folder / "consolidated.01.pth").touch()
    with pytest.raises(ArtefactError, match=r"must hold one file .* and has consolidated.00.pth, consolidated.01.pth"):
        from_meta(folder, tokenizer, tmp_path / "out", 128, overwrite=False)
    (folder / "params.json").unlink()
    with pytest.raises(ArtefactError, match=r"params\.json cannot be read"):
        from_meta(folder, tokenizer, tmp_path / "out", 128, overwrite=False)


def test_another_vocabulary_is_refused(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer nano has 4096 tokens, and .* has weights for 259"):
        from_meta(theirs, "nano", tmp_path / "out", 128, overwrite=False)


@pytest.mark.parametrize("odd", [{"head_dim": 16}, {"hidden_act": "gelu"}])
def test_a_llama_that_their_files_cannot_describe_is_refused(odd: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="and this base"):
        to_meta(MultiTokenModel.from_base(LLAMA.model(**odd), HeadsConfig(heads=2)), tmp_path / "out", overwrite=False)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ArtefactError, match=r"could not be written .*No space left"):
        to_meta(MultiTokenModel.from_base(LLAMA.model(), HeadsConfig(heads=2)), tmp_path / "out", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_what_their_files_cannot_hold_is_refused(tmp_path: Path) -> None:
    for base, heads, message in (
        (LLAMA, HeadsConfig(heads=2, variant="causal"), "parallel heads that share one unembedding"),
        (LLAMA, HeadsConfig(heads=2, replicated=True), "parallel heads that share one unembedding"),
        (GPT2, HeadsConfig(heads=2), "a Llama without biases, and this base is gpt2"),
    ):
        with pytest.raises(ConfigError, match=message):
            to_meta(MultiTokenModel.from_base(base.model(), heads), tmp_path / "out", overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "their files bring no tokenizer; give --tokenizer"),
        (["--to", "meta", "--tokenizer", "nano"], "leave out --tokenizer"),
        (["--tokenizer", "nano", "--context", "0"], "context is 0"),
    ],
)
def test_bad_flags_are_refused(
    flags: list[str], message: str, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(theirs), "--out", str(tmp_path / "out"), *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
