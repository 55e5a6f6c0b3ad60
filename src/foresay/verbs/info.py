"""`foresay info` and `foresay demo`: what a model is, and all of it at once."""

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from foresay.config import require
from foresay.demo import Demo
from foresay.demo import run as run_demo
from foresay.info import BaseInfo, Info, describe, describe_base
from foresay.modelling.load import is_adapter
from foresay.terminal import ERR, OUT, print_json
from foresay.verbs.opening import Model, Opening


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoCommand:
    """Say what a model is: base, adapter, fingerprints, how it was trained; of a base, what an adapter would weigh.

    Examples:
      foresay info smollm2
      foresay info model.gguf
      foresay info my-adapter --json
    """

    model: Model
    """Folder of a foresay model, or a base: a folder, a GGUF file, a hub id, smollm2 or nano."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Print the facts."""
        facts = asdict(self._facts())
        if self.json:
            print_json(facts)
        else:
            OUT.print(yaml.safe_dump(_plain(facts), sort_keys=False, allow_unicode=True).rstrip(), highlight=False)
        return 0

    def _facts(self) -> Info | BaseInfo:
        if is_adapter(self.model):
            return describe(self.opening.open(self.model), self.model)
        require(not self.opening.base, f"{self.model} is no foresay model, so it has no other base; leave out --base")
        return describe_base(self.model, self.opening.loading)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCommand:
    """See it all on the embedded model: train an adapter, decode faster with the same output, in four minutes.

    Examples:
      foresay demo
      foresay demo --seconds 30 --out /tmp/my-adapter
    """

    demo: Demo = field(default_factory=Demo)

    def run(self) -> int:
        """Train, decode, show."""
        return run_demo(self.demo, OUT, ERR)


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
