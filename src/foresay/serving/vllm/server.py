"""vLLM's own OpenAI server on a foresay model: exported where it must be, started, stopped with all its processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foresay.foundation.errors import ForesayError, require
from foresay.foundation.files import cache_folder
from foresay.foundation.hashes import short_hash
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.base.load import adapter_folder, own_dtype
from foresay.serving.config import PluginConfig, VllmServeConfig
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm.export import export_vllm
from foresay.serving.vllm.manifest import command_arguments, engine_arguments
from foresay.serving.vllm.plugin.versions import check_version

SERVER = "vllm.entrypoints.openai.api_server"
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""vLLM reports its usage home unless told not to."""
PATIENCE_SECONDS = 20.0
"""How long a server may take to end by itself."""


class ServerFailed(ForesayError):
    """vLLM ended before it served; what it said stands above."""


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running server; leaving the `with` block ends it."""

    process: subprocess.Popen[bytes]
    url: str

    def ready(self) -> bool:
        """Whether it answers. Raises ServerFailed when it ended."""
        status = self.process.poll()
        if status is not None:
            raise ServerFailed(f"vLLM ended with status {status} before it served; what it said last stands above")
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self, seconds: float) -> None:
        """Raises ServerFailed when it does not answer in time."""
        end = time.monotonic() + seconds
        while not self.ready():
            if time.monotonic() > end:
                raise ServerFailed(f"vLLM did not answer on {self.url} within {seconds:.0f} seconds")
            time.sleep(0.5)

    def wait(self) -> int:
        """Until it ends by itself, or is interrupted: its exit status."""
        try:
            return self.process.wait()
        except KeyboardInterrupt:
            self.stop()
            return 130

    def stop(self) -> None:
        """End it and every process that it started: workers outlive a killed vLLM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "VllmServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(model: str, config: VllmServeConfig | None = None, plugin: PluginConfig | None = None) -> VllmServer:
    """Start vLLM's OpenAI server on `model`: `nano`, an artefact, or a served copy. It does not wait until it serves.

    The model answers to its name as given. Raises ConfigError where vLLM is missing or untested, ArtefactError,
    UnsupportedBase; then no process was started.
    """
    check_version()
    config = config or VllmServeConfig()
    folder = served_copy(model, plugin)
    words = [
        *command_arguments(engine_arguments(folder)),
        *("--served-model-name", model, "--host", config.host, "--port", str(config.port)),
        *config.arguments,
    ]
    secret = {"VLLM_API_KEY": config.api_key} if config.api_key else {}
    process = subprocess.Popen(
        [sys.executable, "-m", SERVER, *words], env=os.environ | QUIET | secret, start_new_session=True
    )
    return VllmServer(process, f"http://{config.host}:{config.port}")


def served_copy(model: str, plugin: PluginConfig | None = None) -> Path:
    """The folder that vLLM is given for `model`: itself, or a copy in the cache, made when there is none."""
    if served.is_served(Path(model)):
        return Path(model)
    adapter, plugin = adapter_folder(model), plugin or PluginConfig()
    settings = artefact.read_settings(adapter)
    base = artefact.base_of(settings, adapter)
    require(
        settings.base != artefact.HERE, f"{adapter} has heads, and vLLM's plugin runs masks; serve it without --engine"
    )
    folder = cache_folder() / "vllm" / _fingerprint(adapter, [base, repr(plugin)])
    if not served.is_served(folder):
        opened = MultiTokenModel.from_pretrained(adapter, base, dtype=own_dtype(base))
        export_vllm(opened, adapter, folder, plugin, overwrite=True)
    return folder


def _fingerprint(adapter: Path, settings: Sequence[str]) -> str:
    files = sorted(path for path in adapter.rglob("*") if path.is_file())
    parts = (part for path in files for part in (str(path.relative_to(adapter)), path.read_bytes()))
    return short_hash("\0".join(settings), *parts)
