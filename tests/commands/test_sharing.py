"""``helix-sae push`` and ``pull``: through a folder, and through a hub that listens on this machine."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner

from helix_sae.cli import app
from helix_sae.commands.sharing import CARD, load_folder, newest_autoencoders, pull, push
from helix_sae.errors import DataError, StoreError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def shipped(project_path: Path) -> Path:
    return project_path / "data" / "06_models" / "helix_mini_saes"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's API that writing and fetching a repository needs: files in memory, one commit."""

    files: dict[str, bytes]
    made: list[dict[str, Any]]

    def log_message(self, format: str, *args: Any) -> None:
        """No lines on the screen of the tests."""

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def say(self, content: Any, status: int = 200) -> None:
        self.answer(json.dumps(content).encode(), status, Content_Type="application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return self.say({"url": f"http://{self.headers['Host']}/me/saes"})
        if path == "/api/validate-yaml":
            return self.say({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.say({"files": files})
        if "/commit/" in path:
            for line in body.decode().splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    self.files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            return self.say(
                {"commitOid": COMMIT, "commitUrl": f"http://{self.headers['Host']}/me/saes/commit/{COMMIT}"}
            )
        return self.say({"error": path}, 404)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/me/saes"):
            siblings = [{"rfilename": name} for name in self.files]
            if "/tree/" in path:
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in self.files.items()
                ]
                return self.say(tree)
            return self.say({"id": "me/saes", "modelId": "me/saes", "sha": COMMIT, "siblings": siblings})
        found = re.fullmatch(r"/me/saes/resolve/[^/]+/(.+)", path)
        if found and found[1] in self.files:
            content = self.files[found[1]]
            return self.answer(content, ETag=f'"{hash(content)}"', X_Repo_Commit=COMMIT)
        return self.say({"error": path}, 404)

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    kept = type("Kept", (Hub,), {"files": {}, "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kept)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kept
    server.shutdown()


def helix_sae(endpoint: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library reads where the hub is when it is imported."""
    variables = {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": "hf_of_nobody",
        "HF_HOME": str(folder / "hf"),
        "HOME": str(folder),
    }
    code = "import sys; from helix_sae.cli import main; sys.argv[0] = 'helix-sae'; main()"
    path = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**path, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_hub_gives_back_what_it_was_given(
    hub: tuple[str, type[Hub]], shipped: Path, tmp_path: Path
) -> None:
    endpoint, kept = hub
    done = helix_sae(endpoint, tmp_path, "push", "me/saes", "--from", str(shipped))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [made["visibility"] for made in kept.made] == ["private"]
    card = kept.files[CARD].decode()
    assert "library_name: saelens" in card
    for site, sae in load_folder(shipped).items():
        certified = int((sae.stability["certified"] == "yes").sum())
        assert f"| `{site}` | {sae.d_sae} | {certified} | 0.9" in card
    done = helix_sae(endpoint, tmp_path, "pull", "me/saes")
    assert done.returncode == 0, done.stdout + done.stderr
    fetched = {p.relative_to(tmp_path / "saes") for p in (tmp_path / "saes").rglob("*") if p.is_file()}
    of_one = json.loads(next((tmp_path / "saes").rglob("cfg.json")).read_text(encoding="utf-8"))["metadata"]
    assert of_one["hook_name"] in card, "cfg.json names the place in the model"
    assert of_one["model_name"], "and the model"
    assert fetched == {p.relative_to(shipped) for p in shipped.rglob("*") if p.is_file()}
    assert all((tmp_path / "saes" / name).read_bytes() == (shipped / name).read_bytes() for name in fetched)

    # What was changed on the way is not taken, and leaves nothing behind.
    name = next(name for name in kept.files if name.endswith(".safetensors"))
    kept.files[name] = kept.files[name][:-1] + b"!"
    done = helix_sae(endpoint, tmp_path, "pull", "me/saes", "--out", "again")
    assert done.returncode == 1
    assert "sae_weights.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "again").exists()


def test_a_repository_that_is_not_there_is_one_screen(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    done = helix_sae(hub[0], tmp_path, "pull", "me/others")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: me/others: autoencoders cannot be fetched from it")
    assert len(done.stderr.splitlines()) == 1


def test_a_hub_that_does_not_answer_is_one_screen(tmp_path: Path) -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{opened.getsockname()[1]}"
    done = helix_sae(nobody, tmp_path, "pull", "me/saes")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: me/saes: autoencoders cannot be fetched from it")
    assert "Traceback" not in done.stderr


def test_a_folder_does_without_a_network(shipped: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    target = tmp_path / "there"
    assert runner.invoke(app, ["push", str(target), "--from", str(shipped)]).exit_code == 0
    assert (target / CARD).exists()
    with pytest.raises(StoreError, match="is not empty"):
        push(shipped, str(target))
    assert set(pull(str(target), tmp_path / "here")) == set(load_folder(shipped))
    with pytest.raises(StoreError, match="is there already"):
        pull(str(target), tmp_path / "here")
    with pytest.raises(StoreError, match=r"no autoencoders \(no manifest.json\)"):
        pull(str(tmp_path), tmp_path / "nothing")


def test_the_newest_whole_version_is_meant(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trained autoencoders"):
        newest_autoencoders(tmp_path)
    for version in "123":
        folder = tmp_path / "06_models" / "sae_checkpoints" / version / "sae_checkpoints"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        if version != "3":
            (folder.parent / "provenance.json").write_text("{}")
    assert newest_autoencoders(tmp_path).parent.name == "2"
