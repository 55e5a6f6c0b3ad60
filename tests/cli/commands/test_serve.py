"""`foresay serve` as a process: it says where it listens, and SIGTERM ends it well."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx

from foresay.cli import main as cli
from foresay.cli.commands import serve
from foresay.cli.commands.options import Opening
from foresay.serving.openai import memory_check as room
from foresay.serving.openai import server, service
from tests.support.processes import start_program


def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "err")
    process = start_program(tmp_path, "serve", "nano", "--layout", "plain", "--port", "0")
    with (tmp_path / "err").open() as err:
        said = next(line for line in err if line.startswith("serving nano at "))
        with httpx.Client(base_url=said.split()[-1], timeout=60) as http:
            body = {"model": "nano", "prompt": "Once upon", "max_tokens": 200, "temperature": 0, "stream": True}
            with http.stream("POST", "/v1/completions", json=body) as reply:
                lines = reply.iter_lines()
                next(lines)
                process.terminate()
                assert [line for line in lines if line][-1] == "data: [DONE]"
        process.join()
        assert process.exitcode == 0
        assert "Traceback" not in err.read()


@pytest.mark.parametrize(
    "options", [["--port", "99999"], ["--sequences", "0"], ["--max-length", "5000"], ["--drain-seconds", "inf"]]
)
def test_impossible_settings_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "nano", "--layout", "plain", *options]) == 2
    assert options[1] in capsys.readouterr().err.replace("\n", " ")


def test_more_texts_than_memory_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda device: 2**20)
    assert cli.main(["serve", "nano", "--sequences", "64", "--max-length", "1000"]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "K/V for 64 + 4 sequences of 1,000 tokens with a prefix cache of 0.5 GiB takes 0." in said
    assert "and 0.0 GiB are free; give a smaller --max-length or --prefix-cache, or fewer --sequences" in said


@pytest.mark.parametrize(
    "option", ["--dtype bfloat16", "--base other", "--sequences 3", "--layout plain", "--threads 0"]
)
def test_what_vllm_is_not_told_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "nano", "--engine", "vllm", *option.split()]) == 2
    name = option.split(maxsplit=1)[0].lstrip("-")
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"{name} was given, and --engine vllm takes host, port, api_key, masks alone" in said


def test_sigterm_is_an_interrupt_where_something_must_be_ended() -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with serve._interrupted_by_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                # A second one does not break off what ends the first.
                signal.raise_signal(signal.SIGTERM)
                ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_model_is_named_as_its_folder_wherever_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names: list[str] = []
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    monkeypatch.setattr(Opening, "open", lambda self, folder: None)
    monkeypatch.setattr(service, "Service", lambda model, name, *rest: names.append(name))
    monkeypatch.setattr(server, "serve", lambda *given: None)
    for model, place in ((".", "mine"), ("..", "mine/inner"), ("mine/", ".")):
        monkeypatch.chdir(tmp_path / place)
        assert cli.main(["serve", model, "--port", "0", "--generation-config", "none"]) == 0
    assert names == ["mine"] * 3


def test_the_model_is_opened_in_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its OpenMP threads would slow down those of the thread that steps are made in.
    opened: list[threading.Thread] = []
    monkeypatch.setattr(Opening, "open", lambda self, folder: opened.append(threading.current_thread()))
    monkeypatch.setattr(service, "Service", lambda *given: opened.append(threading.current_thread()))
    monkeypatch.setattr(server, "serve", lambda *given: None)
    assert cli.main(["serve", "nano", "--port", "0", "--generation-config", "none"]) == 0
    [first, second] = opened
    assert first is second is not threading.main_thread()
    first.join(10)
    assert not first.is_alive()


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert cli.main(["serve", "nano", "--layout", "plain", "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use); give" in capsys.readouterr().err


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert cli.main(["serve", "nano"]) == 2
    assert "serving needs uvicorn; pip install 'foresay[serve]'" in capsys.readouterr().err
