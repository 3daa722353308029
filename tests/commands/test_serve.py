"""``helix-sae serve``: what is opened, and where it is listened at."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from helix_sae.commands.serve import is_loopback, open_served
from helix_sae.errors import ConfigurationError, StoreError


@pytest.mark.slow
def test_what_is_shipped_is_served_where_nothing_ran(project_path: Path, tmp_path: Path) -> None:
    """The command itself, in a folder of its own: it says where it listens, answers, and ends when it is told to."""
    serving = subprocess.Popen(
        [Path(sys.executable).with_name("helix-sae"), "serve", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        said = serving.stdout.readline()
        found = re.search(r"Serving helix_mini, as shipped\. Open (http://127\.0\.0\.1:\d+/)", said)
        assert found, said
        with urllib.request.urlopen(f"{found[1]}api/about", timeout=30) as answer:
            about = json.load(answer)
        assert about["read_outs"][0] == "functional_mrl"
        assert about["n_features"] > 200
        assert about["atlas"] is False
    finally:
        serving.terminate()
    assert serving.wait(60) in (0, -signal.SIGTERM)  # uvicorn ends in order, then passes the signal on


def test_a_port_that_is_taken_is_one_sentence(project_path: Path) -> None:
    from helix_sae.commands.serve import Served, serve_at

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} cannot be listened at"):
            serve_at(Served(None, None), "127.0.0.1", port, print)  # pyright: ignore[reportArgumentType]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such folder"):
        open_served("2026", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="No one run is called '2026'"):
        open_served("2026", str(tmp_path))


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_only_this_machines_own_addresses_need_no_token(host: str, own: bool) -> None:
    assert is_loopback(host) is own
