"""What a killed process left half-written is told from what others are still writing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from helix_sae.temporary import remove_abandoned, temporary_prefix


def prefix_of_a_dead_process() -> str:
    script = "from helix_sae.temporary import temporary_prefix; print(temporary_prefix())"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path: Path) -> None:
    dead = prefix_of_a_dead_process()
    assert dead.startswith(f".tmp-{socket.gethostname()}-")
    left, folder = tmp_path / f"{dead}0", tmp_path / f"{dead}checkpoint"
    folder.mkdir()
    stays = [
        tmp_path / f"{temporary_prefix()}0",
        tmp_path / f".tmp-{socket.gethostname()}-{os.getppid()}-0",
        tmp_path / ".tmp-another-host-1-0",
        tmp_path / f".tmp-{socket.gethostname()}-x-0",
        tmp_path / "results.csv",
    ]
    for path in (left, folder / "weights", *stays):
        path.touch()
    remove_abandoned(str(tmp_path))
    assert set(tmp_path.iterdir()) == set(stays)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    remove_abandoned(str(tmp_path / "none"))
    assert not any(tmp_path.iterdir())
