"""The artefact: one folder with the adapter, what it belongs to, and where it comes from.

`lora/` holds the LoRA half in PEFT's format, `foresay.safetensors` mask embeddings and sampler, `foresay.json` the
settings, fingerprints and provenance; `README.md` is the card.
"""

import json
import logging
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foresay.foundation.errors import ArtefactError, BaseNotFound, ConfigError, in_words
from foresay.foundation.files import replacing
from foresay.foundation.names import SMOLLM2
from foresay.models.artefact.card import card
from foresay.models.artefact.fingerprint import Fingerprints
from foresay.models.artefact.tensors import LORA, files_of, lora_folder
from foresay.models.base.gguf import is_gguf
from foresay.models.base.load import ARTEFACT
from foresay.models.base.quantization import LIBRARY
from foresay.models.config import Family, LoadConfig, MTPConfig, Quantize
from foresay.models.drafting import DraftingModel
from foresay.models.families import FAMILIES

FORMAT = 1
HERE = "."
"""Name of a base that lies in the artefact's own folder."""
SETTINGS = ARTEFACT
BEGINS = "which may begin with this one (foresay train ... --init-from, in Python Recipe.init_from)"
log = logging.getLogger("foresay")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `foresay.json` says."""

    mtp: Family
    base: str
    """Name of the base: `nano`, a hub id, a folder, or `.` for the artefact's own."""
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


def save(folder: Path, model: DraftingModel, settings: Settings, dtype: torch.dtype, overwrite: bool) -> None:
    """Write the artefact whole or not at all: under a temporary name first, then renamed.

    Raises ArtefactError when `folder` is not empty and `overwrite` is not given, or when writing fails; what stood
    there before then stays.
    """
    with replacing(folder, overwrite) as fresh:
        write(fresh, model, settings, dtype)


def write(folder: Path, model: DraftingModel, settings: Settings, dtype: torch.dtype) -> None:
    """Write the artefact's files into `folder`."""
    files = files_of(model, settings.base)
    for name in files.tensors:
        (folder / name).parent.mkdir(exist_ok=True)
    for name, tensors in files.tensors.items():
        save_file(_ready(tensors, dtype), folder / name, metadata={"format": "pt"})
    for name, content in (files.settings | {SETTINGS: asdict(settings)}).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(settings.mtp, settings.base, settings.provenance), encoding="utf-8")


def write_with_base(
    folder: Path, model: DraftingModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, dtype: torch.dtype
) -> None:
    """Write the artefact's files into `folder`, and the ordinary checkpoint of its base beside them.

    The base is left in `dtype`: a copy might not fit beside it.
    """
    for tensor in (*model.model.parameters(), *model.model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    model.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write(folder, model, settings, dtype)


def base_of(settings: Settings, folder: str | Path) -> str:
    """Name of the base that the artefact in `folder` names, or the folder itself where its base lies there.

    Raises BaseNotFound where that base was a local folder or file that is gone.
    """
    if settings.base == HERE:
        return str(folder)
    if Path(settings.base).is_absolute() and not Path(settings.base).exists():
        raise BaseNotFound(
            f"{folder} was trained on {settings.base}, and nothing lies there now; say with --base where that base is "
            "(in Python: base=...)"
        )
    return settings.base


def _no_model(folder: Path) -> str:
    """What lies in `folder`, where it is no artefact, and what to do."""
    name = quote(str(folder))
    train = f"`foresay train {name} --data YOUR-DATA --out MY-ADAPTER`"
    if (folder / "config.json").is_file() or is_gguf(str(folder)):
        return (
            f"{folder} is a base and has no adapter yet; train one with {train} and give its folder (`foresay info "
            f"{name}` says what it would weigh, `foresay advise {name}` whether it would pay)"
        )
    if not folder.exists():
        return (
            f"there is no folder {folder}; give the folder of a foresay model or its hub id, or, where {folder} is a "
            f"base, train one with {train}"
        )
    return f"{folder} has no {SETTINGS}, so it is no foresay model; train one with `foresay train`"


def read_settings(folder: Path) -> Settings:
    """What the artefact in `folder` says of itself. Raises ArtefactError when it is none, or of an unknown format."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ArtefactError(_no_model(folder))
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        _known_keys(said, Settings, path)
        if said["format"] != FORMAT:
            raise ArtefactError(f"{path} has format {said['format']}, this foresay reads {FORMAT}; update foresay")
        if said.get("family") not in FAMILIES or not isinstance(said["base"], str):
            raise ArtefactError(
                f"{path} names family {said.get('family')!r} and base {said['base']!r}; this foresay reads families "
                f"{' and '.join(FAMILIES)} on a named base, so restore the folder or update foresay"
            )
        mtp, kind = said.pop("mtp"), FAMILIES[said["family"]]
        if kind is MTPConfig:
            mtp.setdefault("lora_targets", ["all"])  # as all were before they were written
        _known_keys(mtp, kind, path)
        return Settings(
            **said
            | {
                "mtp": kind(**mtp),
                "fingerprints": Fingerprints(**said["fingerprints"]),
                "acceptance": tuple(said.get("acceptance", ())),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); restore the folder or train again") from error


def load_weights(folder: Path, model: DraftingModel) -> None:
    """Fill what was trained from `folder`; raises ArtefactError for missing, unknown, misshapen or NaN tensors."""
    for name, tensors in files_of(model, "").tensors.items():
        path = lora_folder(folder) / Path(name).name if name.startswith(f"{LORA}/") else folder / name
        _fill(path, tensors)


def check_base(settings: Settings, found: Fingerprints, folder: Path, base: str) -> None:
    """Raise ArtefactError when base, tokenizer, chat template or the user's LoRA are not what it was trained on."""
    trained = settings.fingerprints
    _check_lora(settings, found, folder, base)
    for what in trained.differing(found):
        name, wanted, seen = what.replace("_", " "), getattr(trained, what), getattr(found, what)
        rounded = what in ("base", "embeddings") and (is_gguf(settings.base) or settings.base == SMOLLM2)
        why = (
            " (a GGUF file's weights are rounded: they are not those of the checkpoint it was made of)"
            if rounded
            else ""
        )
        raise ArtefactError(
            f"the adapter in {folder} was trained on {settings.base} with {name} {wanted}, and {base} has {seen}{why}; "
            f"give the {name} it was trained on, or train a new adapter, {BEGINS}"
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
        + f", or train a new adapter, {BEGINS}"
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


def _fill(path: Path, targets: dict[str, Tensor]) -> None:
    cure = "restore the folder or train again"
    with in_words(ArtefactError, f"{path} is missing or damaged", cure, SafetensorError):
        loaded = load_file(path)
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


def _known_keys(said: dict[str, Any], kind: type, path: Path) -> None:
    unknown = sorted(said.keys() - {entry.name for entry in fields(kind)})
    if unknown:
        raise ArtefactError(f"{path} has unknown key {unknown[0]!r}; it was written by a newer foresay, update yours")


def _ready(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """As they are saved. Raises ArtefactError for one that no model could be loaded from."""
    ready = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    if broken := [name for name, tensor in ready.items() if not tensor.isfinite().all()]:
        raise ArtefactError(
            f"{len(broken)} tensors of the model are no numbers in {str(dtype).removeprefix('torch.')}, {broken[0]} "
            "first, so it is not saved; train anew with a lower learning_rate"
        )
    return ready


def as_trained(loading: LoadConfig, settings: Settings) -> LoadConfig:
    """Quantise the base as in training, unless something else is asked for."""
    if loading.quantize != "auto" or settings.quantization not in LIBRARY:
        return loading
    return replace(loading, quantize=cast(Quantize, settings.quantization))
