"""`foresay serve`: a model behind OpenAI's interface, and a page to chat with it."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from foresay.config import DecodeConfig, QueueConfig, ServeConfig
from foresay.errors import ConfigError
from foresay.terminal import ERR
from foresay.verbs.opening import Model, Opening
from foresay.view.bars import calibration_watch, progress_bar

EXTRA = ("fastapi", "uvicorn", "prometheus_client")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeCommand:
    """Serve a model: OpenAI's interface under /v1, a chat page at /, counters at /metrics.

    Requests share steps: they join and leave between them. Requests that name no max_tokens get --max-new-tokens.
    SIGTERM or Ctrl-C stops it, once the answers being written have ended.

    Examples:
      foresay serve nano
      foresay serve my-adapter --port 9000 --sequences 32 --dtype bfloat16
      FORESAY_API_KEY=secret foresay serve my-adapter --host 0.0.0.0
    """

    model: Model
    """Folder of a foresay model, or nano."""
    decode: DecodeConfig = field(default_factory=lambda: DecodeConfig(max_new_tokens=512))
    queue: QueueConfig = field(default_factory=QueueConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Serve until stopped."""
        missing = [name for name in EXTRA if find_spec(name) is None]
        if missing:
            raise ConfigError(f"serving needs {', '.join(missing)}; pip install 'foresay[serve]'")
        from foresay.serving.server import listen, serve  # noqa: PLC0415
        from foresay.serving.service import Service  # noqa: PLC0415

        if self.serve.host not in LOOPBACK and not self.serve.key:
            ERR.print(f"foresay: {self.serve.host} is heard by others, and no --api-key is set", style="yellow")
        with listen(self.serve) as listening:
            model = self.opening.open(self.model)
            with progress_bar(ERR) as bar:
                name = self.serve.name or Path(self.model).name
                service = Service(model, name, self.decode, self.queue, calibration_watch(bar))
            serve(service, self.serve, listening, lambda address: ERR.print(f"serving {name} at {address}"))
        return 0
