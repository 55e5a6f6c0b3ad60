"""A foresay model on the Hugging Face hub: which files go there, and sending them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from foresay.foundation.errors import ArtefactError, first_line
from foresay.foundation.names import NAMED
from foresay.foundation.provenance import without_paths
from foresay.models.artefact.card import card, hub_base
from foresay.models.artefact.folder import HERE, SETTINGS, Settings, read_settings
from foresay.models.artefact.tensors import LORA, PEFT_SETTINGS, PEFT_WEIGHTS, WEIGHTS, lora_folder
from foresay.models.base.hub import HUB_ID

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""How the hub writes licences."""
CERTIFICATE = "certificate.json"
"""What `foresay check --out` wrote into the folder: its sentence goes into the card."""
GENERATE = '''"""Several tokens a step in transformers' generate, with the same output: pip install foresay."""

from foresay.custom_generate import generate_with

ADAPTER = "{repo}"


def generate(model, **arguments):
    """What `model.generate(..., custom_generate="{repo}", trust_remote_code=True)` calls."""
    return generate_with(ADAPTER, model, **arguments)
'''


@dataclass(frozen=True, slots=True)
class Publication:
    """What goes to the hub."""

    repo: str
    """Id of the repository: user/name."""
    files: dict[str, bytes | Path]
    """Content by path in the repository."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {
            name: content.stat().st_size if isinstance(content, Path) else len(content)
            for name, content in self.files.items()
        }


def publication(folder: Path, repo: str, base: str = "", licence: str = "") -> Publication:
    """What of the model in `folder` goes to the repository `repo`.

    `base` is the hub id of its base, where the model names a folder instead; `licence` is the hub's name of the
    adapter's licence. Nothing goes there that is only true here: paths in the provenance are cut to file names.
    Raises ArtefactError for a folder without a model, a base that nobody else can load, and a repository's or a
    licence's bad name.
    """
    settings = read_settings(folder)
    _check_names(repo, licence)
    _check_base(folder, settings, base)
    base = base or settings.base
    texts = {
        SETTINGS: _text(without_paths(_json(folder / SETTINGS)) | {"base": base}),
        "README.md": card(settings.mtp, base, settings.provenance, repo, licence, _proof(folder)),
        "custom_generate/generate.py": GENERATE.format(repo=repo),
        "custom_generate/requirements.txt": "foresay\n",
    }
    peft = lora_folder(folder) / PEFT_SETTINGS
    if peft.is_file():
        texts[f"{LORA}/{PEFT_SETTINGS}"] = _text(_json(peft) | {"base_model_name_or_path": base})
    if (folder / CERTIFICATE).is_file():
        texts[CERTIFICATE] = _text(without_paths(_json(folder / CERTIFICATE)))
    weights = _weights(folder, own_base=settings.base == HERE)
    return Publication(repo, weights | {name: content.encode() for name, content in texts.items()})


def _check_names(repo: str, licence: str) -> None:
    """Raise ArtefactError for a bad name of a repository or of a licence."""
    if not (HUB_ID.fullmatch(repo) and _takes(repo)):
        raise ArtefactError(
            f"{repo!r} is no name of a repository; give USER/NAME, of letters, digits, ., _ and -, at most 96, "
            "without -- or .., and with a letter or a digit at both ends"
        )
    if licence and not LICENCE.fullmatch(licence):
        raise ArtefactError(
            f"{licence!r} is no licence as the hub names them; give a name of small letters, digits, ., - and +, such "
            "as apache-2.0, mit or other (--licence)"
        )


def _check_base(folder: Path, settings: Settings, asked: str) -> None:
    """Raise ArtefactError for a base or a user's LoRA that nobody else can load, or an `asked` base that is another."""
    if asked and settings.base == HERE:
        raise ArtefactError(f"the model in {folder} brings its base, and it goes to the hub too; leave --base-id out")
    if asked and not hub_base(asked):
        raise ArtefactError(
            f"{asked!r} is no hub id, so nobody else can load it; give USER/NAME of the base (--base-id)"
        )
    if not (asked or hub_base(settings.base) or settings.base in (HERE, *NAMED)):
        raise ArtefactError(
            f"the model in {folder} belongs to {settings.base}, which nobody else can load; give the hub id of the "
            "same base (--base-id)"
        )
    if settings.base_adapter and not hub_base(settings.base_adapter):
        raise ArtefactError(
            f"the model in {folder} belongs to a base with the LoRA {settings.base_adapter}, which nobody else can "
            "load; put the LoRA on the hub, and train with its id"
        )


def _takes(repo: str) -> bool:
    """The hub takes such a name."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return False
    return True


def publish(made: Publication, private: bool = False, token: str | None = None) -> str:
    """Send it, in one commit; the commit's address. The repository is made where it is missing.

    Raises ArtefactError.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(made.repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in made.files.items()]
        commit = api.create_commit(made.repo, operations, commit_message="foresay model")
    except Exception as error:  # whatever the HTTP library under huggingface_hub raises, which its versions change
        why, cure = first_line(error), "log in with a token that may write there (`hf auth login`)"
        if constants.HF_HUB_OFFLINE:
            why, cure = "HF_HUB_OFFLINE switches the hub off", "unset it, or see what would go there with --dry-run"
        raise ArtefactError(f"{made.repo} could not be written on the hub ({why}); {cure}") from error
    return str(commit.commit_url)


def _weights(folder: Path, own_base: bool) -> dict[str, bytes | Path]:
    """What is sent as it is: weights, and the checkpoint of a base that lies in the folder; no other files."""
    names = [WEIGHTS, *(path.name for path in folder.iterdir() if own_base and path.name[0] not in "._")]
    found = {name: folder / name for name in names} | {f"{LORA}/{PEFT_WEIGHTS}": lora_folder(folder) / PEFT_WEIGHTS}
    return {name: path for name, path in found.items() if path.is_file()}


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of the folder. Raises ArtefactError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(f"{path} is damaged ({first_line(error)}); restore it, or remove it") from error


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _proof(folder: Path) -> str:
    """The sentence of the certificate in the folder; empty where there is none."""
    try:
        sentence: str = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))["sentence"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return sentence
