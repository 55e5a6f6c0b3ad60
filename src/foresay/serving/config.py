"""Settings of the servers: our own, the plugin in vLLM, and vLLM's own."""

import math
import os
from dataclasses import dataclass, field
from typing import Literal

from foresay.foundation.errors import require, require_at_least, require_kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmServeConfig:
    """How vLLM's server is started."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    api_key: str = field(default="", repr=False)
    """Key that requests must carry; empty: none."""
    arguments: tuple[str, ...] = ()
    """More arguments of vLLM's own server, word by word."""

    def __post_init__(self) -> None:
        require(0 < self.port < 2**16, f"port is {self.port}; give one from 1 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """How a model drafts inside vLLM."""

    masks: int = 0
    """Masks after each request's drafts, at most the trained k; 0 takes the trained k."""
    lengths: Literal["expected", "all"] = "expected"
    """Drafts that stand before the masks: as many as should pay most by the sampler head's own chances, or `all`."""
    busy_requests: int = 0
    """Draft nothing while more requests than this run together; 0: always draft."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_at_least(self, 0, "masks", "busy_requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """How a model is served."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is heard on this machine alone."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    name: str = ""
    """What requests call the model; empty: the last part of its folder."""
    api_key: str = ""
    """Key that requests must bear; empty: the environment's FORESAY_API_KEY, or none."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may ask from a browser, by their origin (http://localhost:3000); * allows all, none is the
    default."""
    request_log: bool = True
    """Say on stderr, in a line for each request, what was asked and how it ended; never what was said. Of /health and
    /metrics only what fails."""
    body_bytes: int = 1_000_000
    """Longest body of a request."""
    timeout_seconds: float = 300.0
    """Longest time from a request to the end of its answer."""
    drain_seconds: float = 30.0
    """Time that answers have to end by themselves when the server is stopped."""

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, f"port is {self.port}; give one from 0 to 65535")
        require_at_least(self, 1, "body_bytes")
        require_at_least(self, 0, "drain_seconds")
        require(math.isfinite(self.drain_seconds), f"drain_seconds is {self.drain_seconds}; give a finite time")
        require(self.timeout_seconds > 0, f"timeout_seconds is {self.timeout_seconds}; give a positive time")

    @property
    def key(self) -> str:
        """The key in force; empty: none."""
        return self.api_key or os.environ.get("FORESAY_API_KEY", "")
