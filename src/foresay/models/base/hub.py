"""foresay models by hub id: fetched once into the hub's own cache, from where they load without a network."""

import re
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from foresay.foundation.errors import ArtefactError, first_line

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(\w[\w.-]*/\w[\w.-]*)")
"""The page of a model, and its id in it."""
NOT_FETCHED = ["custom_generate/*", "*.md"]
"""Code for transformers, which is never run from here, and texts."""


def is_hub_id(name: str) -> bool:
    """`name` can be a model on the hub, and is nothing on this disk."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name).exists()


def cannot_be_id(name: str) -> bool:
    """`name` is no id of a model on the hub, nor one without an owner (`gpt2`)."""
    return not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)


def id_in_address(name: str) -> str:
    """The hub id in the address of a model's page; empty where there is none."""
    found = ADDRESS.match(name)
    return found[1] if found else ""


def fetched(name: str, sign: str, revision: str | None = None) -> Path:
    """Folder with the files of the model `name` on the hub, at `revision` (a commit, branch or tag; None: main).

    `sign` is the file that a foresay model has: where it is missing nothing else is fetched, for a base is large.
    Raises ArtefactError.
    """
    try:
        hf_hub_download(name, sign, revision=revision)
        return Path(snapshot_download(name, revision=revision, ignore_patterns=NOT_FETCHED))
    except Exception as error:  # whatever the HTTP library under huggingface_hub raises, which its versions change
        at = f" at revision {revision}" if revision else ""
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise ArtefactError(
                f"{name} on the hub{at} has no {sign}, so it is no foresay model; where it is a base, train one with "
                f"`foresay train {name} --data YOUR-DATA --out MY-ADAPTER`"
            ) from error
        raise ArtefactError(
            f"no foresay model {name!r}{at} was found: no such folder, and {_why(error)}; give the folder of one, or a "
            "hub id that you may read"
        ) from error


def holds(name: str, file: str) -> bool:
    """Whether the model `name` on the hub, or in its cache, has the file; False where it cannot be asked."""
    try:
        hf_hub_download(name, file)
    except Exception:  # as in `fetched`; whoever then asks for the base is told why it cannot be had
        return False
    return True


def _why(error: Exception) -> str:
    """What kept it, in words. A gated repository is one that is not found, so it comes first."""
    if isinstance(error, GatedRepoError):
        return "the hub wants its terms accepted by you first, on its page (then `hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return "the hub has it, but not this revision"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has none of this name, or it is private (`hf auth login` then says who you are)"
    if constants.HF_HUB_OFFLINE:
        return "the hub is switched off (HF_HUB_OFFLINE) and its cache does not have it"
    return f"the hub cannot be asked ({first_line(error)})"
