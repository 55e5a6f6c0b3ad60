"""GGUF files as bases: transformers reads a file once, and what it read is kept as an ordinary checkpoint.

The checkpoint lies in the cache folder, under the hash of the file's content. It is kept in float32: that is what the
file's blocks dequantise to, half precision would round it, and fingerprints are of these values. So the same file is
the same base everywhere.
"""

import copy
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from foresay.foundation.errors import (
    BaseNotFound,
    ConfigError,
    ForesayError,
    MissingPackage,
    UnsupportedBase,
    first_line,
    in_words,
)
from foresay.foundation.files import cache_folder, made_once
from foresay.foundation.hashes import file_hash
from foresay.foundation.heartbeat import beating, span

ENDING = ".gguf"
READERS = ("gguf", "accelerate")
"""Packages that transformers needs to read these files."""
UNKNOWN = ("not supported", "not yet implemented", "GGMLQuantizationType")
"""In what transformers or gguf say of an architecture or a quantisation that they do not know."""
log = logging.getLogger("foresay")


def is_gguf(name: str) -> bool:
    """A base called `name` is a GGUF file: a path, or HUB/ID/FILE."""
    return name.endswith(ENDING)


def checkpoint_of(name: str) -> Path:
    """Folder with the checkpoint made of the GGUF file called `name`, which is made now if it was not before.

    Raises BaseNotFound for no file or a torn one, UnsupportedBase for one that transformers does not know how to read,
    MissingPackage, and ConfigError where the cache folder cannot be written; then nothing half written is left.
    """
    return converted(_file(name), name)


def converted(file: Path, name: str) -> Path:
    """The checkpoint made of `file`, which the user knows as `name`. Raises as `checkpoint_of`."""
    folder = folder_of(content_hash(file))
    if folder.is_dir():
        return folder
    log.warning("reading %s into an ordinary checkpoint, once: half a minute or more", name)
    failed = f"{folder}, the checkpoint made of {name}, could not be written"
    cure = "set FORESAY_CACHE to a folder that can, with some eight times the room of a 4-bit file"
    with in_words(ConfigError, failed, cure, SafetensorError):
        return made_once(folder, lambda fresh: _convert(file, name, fresh))


def folder_of(sha256: str) -> Path:
    """Where the checkpoint made of a file with that hash lies."""
    return cache_folder() / "gguf" / sha256


def content_hash(file: Path) -> str:
    """sha256 of a file, in hexadecimal; read once as long as the file stays as it is."""
    seen = file.stat()
    return _content_hash(file, seen.st_size, seen.st_mtime_ns)


@lru_cache
def _content_hash(file: Path, size: int, modified: int) -> str:
    return file_hash(file)


def _file(name: str) -> Path:
    """The file called `name`: on this machine, or of a repository on the hub."""
    path = Path(name)
    if path.is_file():
        return path.resolve()
    parts = name.split("/")
    if len(parts) < 3 or path.is_absolute() or path.parent.is_dir():  # HUB/ID/FILE has three parts or more
        raise BaseNotFound(f"there is no file {name}; give the path of a GGUF file, or a hub id with --gguf-file")
    try:
        found = cached_file("/".join(parts[:2]), "/".join(parts[2:]))
    except OSError as error:
        raise BaseNotFound(
            f"no GGUF file {name} was found: not on this machine, and on the hub neither ({first_line(error)}); give "
            "the path of a file, or a reachable hub id with --gguf-file"
        ) from error
    return Path(str(found))


def _convert(file: Path, name: str, folder: Path) -> None:
    """Write into `folder` what transformers reads from `file`."""
    missing = [package for package in READERS if find_spec(package) is None]
    if missing:
        raise MissingPackage(f"{name} is read by {' and '.join(missing)}", "gguf")
    stderr, began = sys.stderr, monotonic()
    quiet = nullcontext() if stderr.isatty() else redirect_stderr(io.StringIO())  # bars of transformers' own
    lines = beating(lambda: print(f"reading {name}, for {span(monotonic() - began)} by now", file=stderr, flush=True))
    with lines, quiet, _alone(file, folder) as source:
        model, tokenizer = _plain(_read_model(source, name)), _read_tokenizer(source, name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _alone(file: Path, folder: Path) -> Iterator[dict[str, str]]:
    """How transformers is told of `file`, and of nothing that lies beside it: the content alone is the base."""
    with TemporaryDirectory(dir=folder) as inner:
        (Path(inner) / "base.gguf").symlink_to(file)
        yield {"pretrained_model_name_or_path": inner, "gguf_file": "base.gguf"}


def _read_model(source: dict[str, str], name: str) -> PreTrainedModel:
    # Where a kernel for packed blocks can be had, transformers would keep them; earlier versions know no such thing.
    unpacked = {"quantization_config": transformers.GgufConfig(dequantize=True)} if _keeps_blocks() else {}
    try:
        config = AutoConfig.from_pretrained(**source)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise UnsupportedBase(f"{name} is a {config.model_type} model, not a causal LM; give one that is")
        model, info = AutoModelForCausalLM.from_pretrained(
            **source, config=config, dtype=torch.float32, output_loading_info=True, **unpacked
        )
    except ForesayError:
        raise
    except Exception as error:  # what parses a torn file can fail in any way
        raise _refusal(name, _reason(error, source, name)) from error
    if info["missing_keys"]:
        first, *others = sorted(info["missing_keys"])
        raise BaseNotFound(f"{name} lacks the tensor {first} and {len(others)} others; give a whole GGUF file")
    return model  # type: ignore[no-any-return]


def _keeps_blocks() -> bool:
    return hasattr(transformers, "GgufConfig")


def _read_tokenizer(source: dict[str, str], name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # as above
        raise BaseNotFound(
            f"{name} holds no tokenizer that transformers can read ({_reason(error, source, name)}); give one "
            "with its tokenizer, or an ordinary checkpoint"
        ) from error


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that was never quantised: the one that was read refuses to be saved."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def _refusal(name: str, why: str) -> ForesayError:
    if any(word in why for word in UNKNOWN):
        return UnsupportedBase(
            f"{name} cannot be read by transformers {transformers.__version__} ({why}); give a GGUF file of an "
            "architecture and quantisation that it knows, or the base as an ordinary checkpoint"
        )
    return BaseNotFound(f"{name} is no GGUF file, or a torn one ({why}); fetch it again")


def _reason(error: Exception, source: dict[str, str], name: str) -> str:
    """What went wrong, said of the file as the user knows it."""
    said = first_line(error) or type(error).__name__
    return said.replace(f"{source['pretrained_model_name_or_path']}/{source['gguf_file']}", name)
