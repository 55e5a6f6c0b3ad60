"""The artefact: one folder with the adapter, what it belongs to, and where it comes from.

`adapter_config.json` and `adapter_model.safetensors` are the LoRA half in PEFT's format; `foresay.safetensors` holds
mask embeddings and sampler, `foresay.json` the settings, fingerprints and provenance; `README.md` is the card.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foresay.config import MTPConfig
from foresay.errors import ArtefactError, ConfigError
from foresay.fingerprint import Fingerprints
from foresay.modelling.guest import ARTEFACT, linear_in
from foresay.modelling.model import MaskModel

FORMAT = 1
SETTINGS = ARTEFACT
WEIGHTS = "foresay.safetensors"
PEFT_SETTINGS, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
log = logging.getLogger("foresay")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `foresay.json` says."""

    mtp: MTPConfig
    base: str
    """Name of the base: `nano`, a hub id or a folder."""
    fingerprints: Fingerprints
    base_adapter: str = ""
    """Name of the user's LoRA on the base: a hub id or a folder; empty when there is none, or it came without one."""
    quantization: str = ""
    """How the base was quantised; empty when it was not."""
    revision: str | None = None
    """Commit of the base on the hub, when it came from there."""
    acceptance: tuple[float, ...] = ()
    """Share of steps that kept the j-th draft, by the real decodes of training."""
    provenance: dict[str, Any] = field(default_factory=dict)
    family: str = "masks"
    format: int = FORMAT


def save(folder: Path, model: MaskModel, settings: Settings, card: str, dtype: torch.dtype, overwrite: bool) -> None:
    """Write the artefact whole or not at all: under a temporary name first, then renamed.

    Raises ArtefactError when `folder` is not empty and `overwrite` is not given, or when writing fails; what stood
    there before then stays.
    """
    with replacing(folder, overwrite) as fresh:
        save_file(_ready(_lora_tensors(model), dtype), fresh / PEFT_WEIGHTS, metadata={"format": "pt"})
        save_file(_ready(_own_tensors(model), dtype), fresh / WEIGHTS, metadata={"format": "pt"})
        _write_json(fresh / PEFT_SETTINGS, _peft_settings(model, settings))
        _write_json(fresh / SETTINGS, asdict(settings))
        (fresh / "README.md").write_text(card, encoding="utf-8")


def check_writable(folder: Path, overwrite: bool) -> None:
    """Raise ArtefactError when `folder` is or lies below a file, or holds something that may not be overwritten."""
    ground = next(parent for parent in folder.absolute().parents if parent.exists())
    if not ground.is_dir():
        raise ArtefactError(f"{folder} cannot be a folder because {ground} is a file; give another place")
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is a file; give a folder for the artefact")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ArtefactError(f"{folder} exists and is not empty; give another folder or --overwrite")


@contextmanager
def replacing(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and vanishes when not."""
    check_writable(folder, overwrite)
    folder = folder.resolve()
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield fresh
        _swap(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{folder} could not be written ({error}); what stood there before is unchanged") from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is; an old folder is moved aside first and removed last."""
    for path in (fresh, *fresh.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if not folder.exists():
        fresh.rename(folder)
        return
    aside = fresh.with_name(f"{fresh.name}.old")
    folder.rename(aside)
    try:
        fresh.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def read_settings(folder: Path) -> Settings:
    """What the artefact in `folder` says of itself. Raises ArtefactError when it is none, or of an unknown format."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ArtefactError(f"{folder} has no {SETTINGS}, so it is no foresay model; train one with `foresay train`")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        _known_keys(said, Settings, path)
        if said["format"] != FORMAT:
            raise ArtefactError(f"{path} has format {said['format']}, this foresay reads {FORMAT}; update foresay")
        if said.get("family") != "masks" or not isinstance(said["base"], str):
            raise ArtefactError(
                f"{path} names family {said.get('family')!r} and base {said['base']!r}; this foresay reads family "
                "masks on a named base, so restore the folder or update foresay"
            )
        mtp = said.pop("mtp")
        _known_keys(mtp, MTPConfig, path)
        return Settings(
            **said
            | {
                "mtp": MTPConfig(**mtp),
                "fingerprints": Fingerprints(**said["fingerprints"]),
                "acceptance": tuple(said.get("acceptance", ())),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); restore the folder or train again") from error


def load_weights(folder: Path, model: MaskModel) -> None:
    """Fill the adapter from `folder`; raises ArtefactError for missing, unknown, misshapen or NaN tensors."""
    _fill(folder / PEFT_WEIGHTS, _lora_tensors(model))
    _fill(folder / WEIGHTS, _own_tensors(model))


def card(settings: Settings) -> str:
    """The model card, in Markdown."""
    mtp = settings.mtp
    return f"""---
base_model: {settings.base}
library_name: foresay
tags: [multi-token-prediction, speculative-decoding]
---
# A multi-token adapter for {settings.base}

Made with foresay. It lets the frozen base draft up to {mtp.num_masks} tokens behind every token and verify them in the
same forward, with the same greedy output. Gated LoRA of rank {mtp.rank}, sampler head `{mtp.sampler}`, mask embeddings
{"trained" if mtp.train_masks else "random and frozen"}.

    foresay generate FOLDER "your prompt" --stats
    foresay check FOLDER
    foresay bench FOLDER

The LoRA half (`{PEFT_WEIGHTS}`) is in PEFT's format, but **do not load it with plain PEFT to generate text**: there it
acts on every row and spoils the base. Here it acts on mask rows only, so the base's own output is untouched.

`{SETTINGS}` holds settings, fingerprints of base, tokenizer and chat template, and how it was trained.
"""


def check_base(settings: Settings, found: Fingerprints, folder: Path, base: str) -> None:
    """Raise ArtefactError when base, tokenizer, chat template or the user's LoRA are not what it was trained on."""
    trained = settings.fingerprints
    _check_lora(settings, found, folder, base)
    for what in fields(Fingerprints):
        wanted, seen = getattr(trained, what.name), getattr(found, what.name)
        if None not in (wanted, seen) and wanted != seen:
            name = what.name.replace("_", " ")
            raise ArtefactError(
                f"the adapter in {folder} was trained on {settings.base} with {name} {wanted}, and {base} has {seen}; "
                f"give the {name} it was trained on, or train a new adapter"
            )


def _check_lora(settings: Settings, found: Fingerprints, folder: Path, base: str) -> None:
    """The user's LoRA: there or not, and which."""
    wanted, seen = settings.fingerprints.base_adapter, found.base_adapter
    if wanted == seen:
        return
    trained = f"the LoRA {settings.base_adapter or 'of its user'} ({wanted})" if wanted else "no LoRA of a user's own"
    raise ArtefactError(
        f"the adapter in {folder} was trained on {settings.base} with {trained}, and {base} carries {seen or 'none'}; "
        + ("give the one it was trained on as base_adapter (--base-adapter)" if wanted else "give the bare base")
        + ", or train a new adapter"
    )


def check_quantization(settings: Settings, quantization: str, folder: Path) -> None:
    """Warn when the base is quantised otherwise than in training: drafts may be worse, the output stays the base's."""
    if settings.quantization != quantization:
        log.warning(
            "the adapter in %s was trained on a base that is %s, and this one is %s: fewer drafts may be "
            "kept; the output is that of the base as it is loaded",
            folder,
            *(f"quantised to {how}" if how else "not quantised" for how in (settings.quantization, quantization)),
        )


def _lora_tensors(model: MaskModel) -> dict[str, Tensor]:
    """The LoRA half, under PEFT's names."""
    tensors: dict[str, Tensor] = {}
    for pair in model.adapter.pairs:
        tensors[f"{PEFT_PREFIX}{pair.name}.lora_A.weight"] = pair.down
        tensors[f"{PEFT_PREFIX}{pair.name}.lora_B.weight"] = pair.up
    return tensors


def _own_tensors(model: MaskModel) -> dict[str, Tensor]:
    """The half that PEFT has no place for."""
    sampler = {f"sampler.{name}": value for name, value in model.adapter.sampler.state_dict().items()}
    return {"masks": model.adapter.masks, **sampler}


def _fill(path: Path, targets: dict[str, Tensor]) -> None:
    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{path} is missing or damaged ({error}); restore the folder or train again") from error
    if loaded.keys() != targets.keys():
        wrong = sorted(loaded.keys() ^ targets.keys())
        raise ArtefactError(
            f"{path} and its base disagree on {len(wrong)} tensors, {wrong[0]} first; give the right base"
        )
    for name, target in targets.items():
        value = loaded[name]
        if value.shape != target.shape or value.isnan().any():
            what = (
                "holds NaN"
                if value.shape == target.shape
                else f"has shape {tuple(value.shape)}, not {tuple(target.shape)}"
            )
            raise ArtefactError(f"{name} in {path} {what}; restore the folder or train again")
        with torch.no_grad():
            target.copy_(value)


def _peft_settings(model: MaskModel, settings: Settings) -> dict[str, Any]:
    names = [pair.name for pair in model.adapter.pairs]
    transposed = any(not isinstance(linear_in(m), torch.nn.Linear) for m in model.base.linears().adapted.values())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.base,
        "r": settings.mtp.rank,
        "lora_alpha": settings.mtp.lora_alpha,
        "target_modules": _targets(names, model),
        "fan_in_fan_out": transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _targets(names: list[str], model: MaskModel) -> list[str]:
    """Last parts of the names where PEFT takes them for the same linears (engines prefer them); else whole names."""
    ends = {name.rsplit(".", 1)[1] for name in names}
    meant = {name for name, _ in model.model.named_modules() if name.rsplit(".", 1)[-1] in ends}
    return sorted(ends) if meant == set(names) else sorted(names)


def _known_keys(said: dict[str, Any], kind: type, path: Path) -> None:
    unknown = sorted(said.keys() - {entry.name for entry in fields(kind)})
    if unknown:
        raise ArtefactError(f"{path} has unknown key {unknown[0]!r}; it was written by a newer foresay, update yours")


def _ready(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
