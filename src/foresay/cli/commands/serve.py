"""`foresay serve`: a model behind OpenAI's interface, and a page to chat with it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foresay.cli.commands.options import GenerationRules, Model, Opening, Options, rules_for
from foresay.cli.given import Given
from foresay.cli.terminal import ERR
from foresay.decoding.config import DecodeConfig, PenaltyConfig, QueueConfig, SampleConfig
from foresay.foundation.errors import ConfigError, require
from foresay.foundation.threads import in_thread
from foresay.serving.config import PluginConfig, ServeConfig, VllmServeConfig
from foresay.serving.vllm.server import start

if TYPE_CHECKING:
    from foresay.serving.openai.service import Service

EXTRA = ("fastapi", "uvicorn", "prometheus_client")
READY_SECONDS = 600.0
"""How long vLLM may take to load and compile."""
TAKEN = ("host", "port", "api_key", "masks")
"""What vLLM's server is told of our flags."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeCommand:
    """Serve a model: OpenAI's interface under /v1 (in words at /docs), a chat page at /, counters at /metrics.

    Requests share steps: they join and leave between them. Requests that name no max_tokens get --max-new-tokens.
    SIGTERM or Ctrl-C stops it, once the answers being written have ended. It has no --json: its results are answers.

    Examples:
      foresay serve smollm2
      foresay serve my-adapter --port 9000 --sequences 32 --dtype bfloat16
      FORESAY_API_KEY=secret foresay serve my-adapter --host 0.0.0.0
      foresay serve my-adapter --engine vllm --masks 4
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    engine: Literal["foresay", "vllm"] = "foresay"
    """Who decodes: foresay, or vLLM's own server with the plugin, which takes host, port, api-key and masks alone."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    generation_config: GenerationRules = "auto"
    """Where nothing is asked for, `auto` chooses tokens as the base's generation_config.json says, `none` does not."""
    opening: Opening = field(default_factory=Opening)
    given: Options = field(default_factory=Given)

    def run(self) -> int:
        """Serve until stopped."""
        if self.serve.host not in LOOPBACK and not self.serve.key:
            ERR.print(f"foresay: {self.serve.host} is heard by others, and no --api-key is set", style="yellow")
        return self._serve_on_vllm() if self.engine == "vllm" else self._serve()

    def _serve_on_vllm(self) -> int:
        self._refuse_what_vllm_does_not_take()
        config = VllmServeConfig(host=self.serve.host, port=self.serve.port, api_key=self.serve.key)
        with (
            _interrupted_by_sigterm(),
            start(self.model, config, PluginConfig(masks=self.decode.masks)) as server,
        ):
            server.wait_until_ready(READY_SECONDS)
            ERR.print(f"serving {self.model} at {server.url}")
            return server.wait()

    def _refuse_what_vllm_does_not_take(self) -> None:
        others = sorted(self.given.names - {"engine", *TAKEN})
        require(
            not others,
            f"{', '.join(others)} was given, and --engine vllm takes {', '.join(TAKEN)} alone; leave it out, or export "
            "the model and start vLLM with its own flags",
        )

    def _serve(self) -> int:
        missing = [name for name in EXTRA if find_spec(name) is None]
        if missing:
            raise ConfigError(f"serving needs {', '.join(missing)}; pip install 'foresay[serve]'")
        from foresay.serving.openai.server import listen, serve  # noqa: PLC0415

        with listen(self.serve) as listening:
            service = in_thread(self._service)
            serve(service, self.serve, listening, lambda line: ERR.print(line, highlight=False))
        return 0

    def _service(self) -> "Service":
        from foresay.serving.openai.service import Service  # noqa: PLC0415

        model = self.opening.open_to_decode(self.model, self.decode, self.given)
        name = self.serve.name or Path(os.path.abspath(self.model)).name
        rules = rules_for(model, self.generation_config, SampleConfig(), PenaltyConfig(), Given())
        return Service(model, name, self.decode, self.queue, rules)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM is as Ctrl-C in here, so that what was started is ended too; another one does not break that off."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
