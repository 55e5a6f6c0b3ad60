"""vLLM's OpenAI server, started by foresay, asked by OpenAI's own client."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

import openai

from foresay.model import MultiTokenModel
from foresay.models.base.load import adapter_folder
from foresay.serving.config import VllmServeConfig
from foresay.serving.vllm.export import export_vllm_draft_model
from foresay.serving.vllm.server import VllmServer, start
from tests.serving.vllm.plugin.engines import reference

START_SECONDS = 540
WORDS = ("--dtype", "float32", "--max-model-len", "512", "--enforce-eager")


@pytest.fixture(scope="module", params=["masks", "draft model"])
def folder(
    request: pytest.FixtureRequest, nano: MultiTokenModel, nano_copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What is served: masks inside vLLM, or the fallback."""
    if request.param == "masks":
        return nano_copy
    folder = tmp_path_factory.mktemp("draft") / "nano"
    export_vllm_draft_model(nano, adapter_folder("nano"), folder, 4, overwrite=False)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[VllmServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with start(str(folder), VllmServeConfig(port=port, api_key="secret", arguments=WORDS)) as server:
        server.wait_until_ready(START_SECONDS)
        yield server
    assert server.process.poll() is not None


def client(server: VllmServer, key: str = "secret") -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def test_streams_several_tokens_a_chunk(
    server: VllmServer, nano: MultiTokenModel, folder: Path, prompts: list[list[int]]
) -> None:
    wanted = reference(nano, prompts[:4])
    for prompt, tokens in zip(prompts, wanted):
        stream = client(server).completions.create(
            model=str(folder), prompt=prompt, max_tokens=48, temperature=0.0, stream=True
        )
        chunks = [chunk.choices[0].text for chunk in stream if chunk.choices]
        assert "".join(chunks) == nano.require_tokenizer().decode(tokens, skip_special_tokens=True)
        assert len(chunks) < len(tokens), "a chunk a token would be plain decoding"


def test_chats(server: VllmServer, folder: Path) -> None:
    said = client(server).chat.completions.create(
        model=str(folder), messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0.7
    )
    assert said.usage.completion_tokens > 0


def test_a_wrong_key_is_refused(server: VllmServer, folder: Path) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(server, "wrong").completions.create(model=str(folder), prompt="a")


def test_metrics_count_drafts_and_no_masks(server: VllmServer, folder: Path, prompts: list[list[int]]) -> None:
    client(server).completions.create(model=str(folder), prompt=prompts[0], max_tokens=48, temperature=0.0)
    lines = urlopen(f"{server.url}/metrics").read().decode().splitlines()
    found = {
        name: sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:spec_decode_num_{name}_total")
        )
        for name in ("drafts", "draft_tokens", "accepted_tokens")
    }
    assert 0 < found["accepted_tokens"] <= found["draft_tokens"]
    # With the masks among them there would be at least as many as masks in every step.
    assert found["draft_tokens"] < 8 * found["drafts"]
