"""A stand-in for the Hugging Face hub: its API and downloads over HTTP, from memory."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from foresay.models.base.hub import HUB_ID


@dataclass(slots=True)
class Hub:
    """Repositories with their files, every commit of them."""

    address: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Files by commit (`main` is the last one too) and repository."""
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    """Paths of all requests."""

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """A commit on top of the last one; its id."""
        commits = self.commits.setdefault(repo, {})
        whole = commits.get("main", {}) | files
        commit = sha1(repr(sorted(whole.items())).encode()).hexdigest()
        commits[commit] = commits["main"] = whole
        return commit

    def commit(self, repo: str, revision: str) -> str | None:
        """The id of a revision."""
        commits = self.commits.get(repo, {})
        return next((one for one in commits if one != "main" and commits[one] is commits.get(revision)), None)


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, where foresay asks it."""

    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append(path)
        repo, rest = split(path)
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if repo not in self.hub.commits or repo in self.hub.private:
            return self.refuse(401, "RepoNotFound")
        kind, _, named = rest.partition("/")
        revision, _, file = named.partition("/")
        commit = self.hub.commit(repo, revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        files = self.hub.commits[repo][commit]
        if kind == "resolve":
            return self.send_file(files.get(file), commit)
        if kind == "tree":
            return self.send([{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in files.items()])
        return self.send({"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    def do_POST(self) -> None:
        self.hub.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            return self.send({"url": f"{self.hub.address}/{repo}", "id": repo, "name": repo})
        if self.path == "/api/validate-yaml":
            return self.send({"errors": [], "warnings": []})
        repo, rest = split(self.path)
        if rest.startswith("preupload"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.send({"files": files})
        lines = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
        commit = self.hub.add(repo, {line["path"]: base64.b64decode(line["content"]) for line in lines})
        return self.send({"commitUrl": f"{self.hub.address}/{repo}/commit/{commit}", "commitOid": commit})

    def send_file(self, content: bytes | None, commit: str) -> None:
        if content is None:
            return self.refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        self.send_whole(200, content, headers)

    def send(self, content: Any) -> None:
        self.send_whole(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        self.send_whole(status, b"{}", {"X-Error-Code": code})

    def send_whole(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def split(path: str) -> tuple[str, str]:
    """A repository and what is asked of it."""
    path = path.removeprefix("/").removeprefix("api/models/")
    found = HUB_ID.match(path)
    return (found[0], path[found.end() + 1 :]) if found else ("", path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that huggingface_hub takes for its own, with an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
