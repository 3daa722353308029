"""An object store that stalls, fails or refuses: asked again within limits, and then named with what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helix_sae import storage
from helix_sae.errors import StoreError
from helix_sae.storage import digest_of, open_filesystem, read_file, write_file


class Server(NamedTuple):
    """An S3 server in a process of its own, and how it is reached."""

    process: subprocess.Popen[bytes]
    options: dict[str, Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("moto.server", reason="moto is not installed (extra dev)")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (extra cluster)")
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = {"endpoint_url": f"http://127.0.0.1:{port}"}
    options = {"key": "k", "secret": "s", "client_kwargs": endpoint}
    for _ in range(300):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir("bucket")
    monkeypatch.setattr(storage, "_PATIENCE_S", 0.3)
    yield Server(process, options)
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["stalls", "is gone"])
def test_a_store_that_does_not_answer_is_named_after_a_while(what: str, server: Server) -> None:
    fs, path = open_filesystem("s3://bucket/file", server.options)
    write_file(fs, path, b"content")
    if what == "stalls":
        os.kill(server.process.pid, signal.SIGSTOP)
    else:
        server.process.kill()
        server.process.wait()
    began = time.monotonic()
    for attempt in (lambda: read_file(fs, path), lambda: write_file(fs, path, b"more")):
        with pytest.raises(StoreError, match=r"bucket/file: cannot be (read|written)") as named:
            attempt()
        assert len(str(named.value)) < 1500
    assert 0.3 < time.monotonic() - began < 60


@pytest.mark.slow
def test_a_store_that_comes_back_in_time_costs_nothing_but_time(server: Server) -> None:
    fs, path = open_filesystem("s3://bucket/file", server.options)
    write_file(fs, path, b"content")
    os.kill(server.process.pid, signal.SIGSTOP)
    waker = subprocess.Popen(["sh", "-c", f"sleep 0.4; kill -CONT {server.process.pid}"])
    assert read_file(fs, path) == b"content"
    waker.wait()


@pytest.mark.slow
def test_a_bucket_that_is_not_there_and_credentials_that_are_missing(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fs, path = open_filesystem("s3://nobucket/file", server.options)
    with pytest.raises(StoreError, match="nobucket/file"):
        write_file(fs, path, b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    fs, path = open_filesystem(
        "s3://bucket/file", {"client_kwargs": server.options["client_kwargs"], "anon": False}
    )
    with pytest.raises(StoreError, match="credentials"):
        write_file(fs, path, b"x")


def test_digests_of_files_and_folders(tmp_path: Path) -> None:
    fs, _ = open_filesystem(str(tmp_path))
    (tmp_path / "a").write_text("1")
    (tmp_path / ".hidden").write_text("2")
    before = digest_of(fs, str(tmp_path))
    assert digest_of(fs, str(tmp_path / "a")) == storage.sha256(b"1")
    (tmp_path / ".hidden").write_text("3")
    assert digest_of(fs, str(tmp_path)) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_of(fs, str(tmp_path)) != before
    (tmp_path / "manifest.json").write_text("{}")
    assert digest_of(fs, str(tmp_path)) == storage.sha256(b"{}")
    with pytest.raises(StoreError, match="missing"):
        digest_of(fs, str(tmp_path / "none"))
