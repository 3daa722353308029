"""Kedro-Viz serves the project's graph; asked for over loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PIPELINES = {
    "__default__",
    "ingestion",
    "extraction",
    "sae_training",
    "correlation",
    "causal_acdc",
    "reporting",
    "simulation",
    "pretraining",
    "sae_sweep",
}


def free_port() -> int:
    """A port below 50,000: Kedro-Viz looks for one in the 10,000 above what it is given."""
    for port in range(20_000 + os.getpid() % 10_000, 50_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def viz(project_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running Kedro-Viz."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("viz") / "log.txt"
    command = [Path(sys.executable).with_name("kedro"), "viz", "run", "--no-browser", "--host", "127.0.0.1"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=project_path, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            wait_until_up(server, address, log)
            yield address
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the command and the process that it serves from, which would outlive it."""
    os.killpg(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def wait_until_up(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api/main", timeout=60).read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"Kedro-Viz did not answer: {log.read_text()}")


def ask(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_graph_has_the_pipelines_and_what_they_make(viz: str) -> None:
    graph = ask(f"{viz}/api/main")
    assert {pipeline["id"] for pipeline in graph["pipelines"]} == PIPELINES
    names = {node["name"] for node in graph["nodes"] if node["type"] == "data"}
    assert {
        "mrna_table",
        "activations",
        "sae_checkpoints",
        "associations",
        "feature_effects",
        "circuit",
    } <= names
    known = {node["id"] for node in graph["nodes"]}
    assert all({edge["source"], edge["target"]} <= known for edge in graph["edges"])


@pytest.mark.slow
def test_every_dataset_of_the_graph_can_be_described(viz: str) -> None:
    """The details pane asks for each; a dataset whose preview breaks without data would fail there."""
    for node in ask(f"{viz}/api/main")["nodes"]:
        if node["type"] == "data":
            assert isinstance(ask(f"{viz}/api/nodes/{node['id']}"), dict), node["name"]
