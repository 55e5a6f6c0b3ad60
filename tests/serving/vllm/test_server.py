"""Starting and ending vLLM's server, with a stand-in for it: which words it gets, and that nothing of it is left."""

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from foresay.foundation.errors import ConfigError
from foresay.serving.config import PluginConfig, VllmServeConfig
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm import server as vllm_serving
from foresay.serving.vllm.plugin import versions
from foresay.serving.vllm.server import ServerFailed, VllmServer, served_copy, start

STAND_IN = """
import http.server, json, os, pathlib, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
told = {"words": sys.argv[1:], "key": os.environ.get("VLLM_API_KEY"), "worker": worker.pid}
pathlib.Path(os.environ["TOLD"]).write_text(json.dumps(told))
if "--fail" in sys.argv:
    sys.exit(3)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in was told, once it runs."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(vllm_serving, "SERVER", "stand_in")
    monkeypatch.setattr(vllm_serving, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(versions, "found", lambda: versions.TESTED[0])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.json"))
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    return tmp_path / "told.json"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def vanishes(process: int) -> bool:
    """Within a few seconds: the kernel takes a moment."""
    end = time.monotonic() + 5
    while lives(process) and time.monotonic() < end:
        time.sleep(0.02)
    return not lives(process)


def test_the_server_gets_its_words_and_leaves_no_process(told: Path) -> None:
    port = free_port()
    with start("nano", VllmServeConfig(port=port, api_key="secret", arguments=("--enforce-eager",))) as server:
        server.wait_until_ready(60)
        said = json.loads(told.read_text())
        assert lives(said["worker"])
    assert vanishes(said["worker"])
    assert server.process.poll() is not None
    words = said["words"]
    assert words[: words.index("--served-model-name")] == served.command_arguments(
        served.engine_arguments(served_copy("nano"))
    )
    assert words[words.index("--served-model-name") + 1] == "nano"
    assert words[-1] == "--enforce-eager"
    assert said["key"] == "secret"
    assert "secret" not in words, "others can read a command line"


def test_the_copy_is_made_once_and_anew_for_other_settings(told: Path, tmp_path: Path) -> None:
    first = served_copy("nano")
    made = (first / served.SETTINGS).stat().st_mtime_ns
    assert served_copy("nano") == first
    assert (first / served.SETTINGS).stat().st_mtime_ns == made
    other = served_copy("nano", PluginConfig(masks=2))
    assert other != first
    assert served.read(other).plugin.masks == 2
    assert served_copy(str(other)) == other


def test_a_server_that_fails_or_hangs_is_named(told: Path) -> None:
    with start("nano", VllmServeConfig(port=free_port(), arguments=("--fail",))) as server:
        with pytest.raises(ServerFailed, match="ended with status 3 before it served"):
            server.wait_until_ready(60)
        worker = json.loads(told.read_text())["worker"]
    assert vanishes(worker)
    with start("nano", VllmServeConfig(port=free_port())) as server:
        elsewhere = VllmServer(server.process, f"http://127.0.0.1:{free_port()}")
        with pytest.raises(ServerFailed, match="did not answer"):
            elsewhere.wait_until_ready(0.1)


def test_an_interrupt_ends_it(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start("nano", VllmServeConfig(port=free_port()))
    server.wait_until_ready(60)

    def interrupted(*_: object) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(server.process, "wait", interrupted)
    assert server.wait() == 130
    assert server.process.poll() is not None
    assert vanishes(json.loads(told.read_text())["worker"])


def test_nothing_is_started_where_vllm_is_missing_or_the_port_cannot_be(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "found", lambda: None)
    with pytest.raises(ConfigError, match="not installed"):
        start("nano")
    with pytest.raises(ConfigError, match="port is 70000"):
        VllmServeConfig(port=70_000)
    assert not told.exists()
