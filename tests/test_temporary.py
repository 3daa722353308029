"""Files whole or not at all; what a killed process left is told from what others are still writing."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helix_sae.temporary import draft_in, elsewhere, remove_abandoned, temporary_prefix, whole_file


def prefix_of_a_dead_process() -> str:
    script = "from helix_sae.temporary import temporary_prefix; print(temporary_prefix())"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path: Path) -> None:
    dead = prefix_of_a_dead_process()
    machine = temporary_prefix().removesuffix(f"-{os.getpid()}-")
    assert machine.startswith(f".tmp-{socket.gethostname()}.")
    assert dead.startswith(f"{machine}-")
    left, folder = tmp_path / f"{dead}0", tmp_path / f"{dead}checkpoint"
    folder.mkdir()
    stays = [
        tmp_path / f"{temporary_prefix()}0",
        tmp_path / f"{machine}-{os.getppid()}-0",
        # A container of the same name, with processes numbered alike.
        tmp_path / f".tmp-{socket.gethostname()}.00000000-{dead.split('-')[-2]}-0",
        tmp_path / ".tmp-another-host-1-0",
        tmp_path / f"{machine}-x-0",
        tmp_path / "results.csv",
    ]
    for path in (left, folder / "weights", *stays):
        path.touch()
    remove_abandoned(str(tmp_path))
    assert set(tmp_path.iterdir()) == set(stays)


def test_what_nobody_touched_for_a_week_is_removed_whoever_began_it(tmp_path: Path) -> None:
    old, young = tmp_path / ".tmp-another-host-1-0", tmp_path / ".tmp-another-host-1-1"
    for folder in (old, young):
        folder.mkdir()
        (folder / "draft").touch()
        os.utime(folder, (0, 0))
    os.utime(old / "draft", (0, 0))
    remove_abandoned(str(tmp_path))
    assert list(tmp_path.iterdir()) == [young]


def test_copies_of_remote_files_that_a_killed_process_left_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import os
from helix_sae.temporary import elsewhere
folder = elsewhere()
open(folder.name + "/copy", "w").close()
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("helix-sae.tmp-")
    (tmp_path / "helix-sae-notes").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with elsewhere() as own:
        assert {path.name for path in tmp_path.iterdir()} == {"helix-sae-notes", Path(own).name}
    assert not left.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    remove_abandoned(str(tmp_path / "none"))
    assert not any(tmp_path.iterdir())


def test_a_whole_file_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "below" / "weights.safetensors"
    for value in (1.0, 2.0):
        with whole_file(path) as file:
            save_file({"weight": np.full(3, value)}, file)
            assert not path.exists() or load_file(path)["weight"][0] == 1.0
    assert load_file(path)["weight"].tolist() == [2.0] * 3
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_text("before")

    def write_half() -> None:
        with whole_file(path) as file:
            file.write_text("half")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_as_such_whoever_writes(tmp_path: Path) -> None:
    script = f"""
import resource
import numpy as np
from safetensors.numpy import save_file
from helix_sae.temporary import whole_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_file({str(tmp_path / "weights")!r}) as file:
        save_file({{"weight": np.zeros(1000)}}, file)
except OSError as error:
    print(error.errno)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) == errno.EFBIG
    assert not any(tmp_path.iterdir())


def test_what_a_dead_process_of_this_number_left_is_not_taken_over(tmp_path: Path) -> None:
    with draft_in(str(tmp_path)) as first:
        following = int(first.parent.name.rsplit("-", 1)[1]) + 1
    left = tmp_path / f"{temporary_prefix()}{following}"
    left.mkdir()
    (left / ".tmp8sAmQb").touch()
    with draft_in(str(tmp_path)) as second:
        assert second.parent == left
        assert not any(left.iterdir())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077])
def test_rights_are_those_of_any_new_file(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "weights") as file:
            save_file({"weight": np.zeros(1)}, file)
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode
