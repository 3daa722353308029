"""A default run calls nobody: every process of it noted what would have left the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro_runs import CALLS, FinishedRun, environment


def attempt(root: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process like those of a run."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment(root)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('203.0.113.1', 80), timeout=1)",
        "import urllib.request; urllib.request.urlopen('http://example.org/', timeout=1)",
        "import socket; socket.getaddrinfo('example.org', 443)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.1', 53))",
        "import asyncio; asyncio.run(asyncio.open_connection('203.0.113.1', 80))",
        # A library that swallows the refusal is noted all the same, and so is what a process of the run starts.
        "import socket\ntry: socket.create_connection(('203.0.113.1', 80), 1)\nexcept OSError: raise SystemExit(1)",
        "import subprocess, sys\nraise SystemExit(subprocess.run([sys.executable, '-c', "
        "\"import socket; socket.create_connection(('203.0.113.1', 80), 1)\"]).returncode)",
    ],
)
def test_the_guard_notices(tmp_path: Path, code: str) -> None:
    done = attempt(tmp_path, code)
    assert done.returncode == 1, done.stderr
    noted = (tmp_path / CALLS).read_text(encoding="utf-8")
    assert "203.0.113.1" in noted or "example.org" in noted


def test_the_guard_lets_pass_what_stays_here(tmp_path: Path) -> None:
    code = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).sendall(b"x")
assert server.accept()[0].recv(1) == b"x"
assert socket.getaddrinfo("localhost", 80)
"""
    done = attempt(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / CALLS).exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_default_run_calls_nobody(finished_run: FinishedRun) -> None:
    """Simulation, pretraining and the default pipeline; the log says that they ran."""
    assert "Pipeline execution completed" in finished_run.output
    calls = finished_run.root / CALLS
    assert not calls.exists(), calls.read_text(encoding="utf-8")
