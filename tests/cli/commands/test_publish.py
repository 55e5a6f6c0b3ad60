"""`foresay publish` at the command line."""

import json

from tests.support.commands import At, Run
from tests.support.hub import Hub

BASE = ("--base-id", "somebody/base")


def test_the_command_shows_before_it_sends(hub: Hub, at: At, run: Run) -> None:
    said = run("publish", at.adapter, "somebody/adapter", *BASE, "--dry-run")
    assert (said.status, hub.asked) == (0, [])
    for words in ("lora/adapter_model.safetensors", "custom_generate/generate.py", "base_model: somebody/base"):
        assert words in said.out
    said = run("publish", at.adapter, "somebody/adapter", *BASE, "--json")
    assert json.loads(said.out)["files"] == {
        name: len(file) for name, file in hub.commits["somebody/adapter"]["main"].items()
    }
