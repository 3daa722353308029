"""Whole or absent: every entry of the catalog, killed in the middle of its write, on a full disk, damaged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import whole_catalog
from kedro.io.core import DatasetError

from helix_sae.errors import StoreError


def in_a_process(what: str, root: Path, *prefix: str) -> dict[str, list[Any]]:
    command = [*prefix, sys.executable, whole_catalog.__file__, what, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def project_set_up(project_path: Path) -> None:
    assert project_path == whole_catalog.PROJECT


@pytest.mark.slow
def test_killed_in_the_middle_of_every_write(tmp_path: Path) -> None:
    """The kernel kills the process at half of the longest file; the version before it is what loads."""
    found = in_a_process("kills", tmp_path)
    assert len(found) > 60
    for name, (status, version) in found.items():
        assert status == -signal.SIGXFSZ, name
        assert version in ("v1", None), name


def mounts_allowed() -> bool:
    command = ["unshare", "--mount", "--user", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not mounts_allowed(), reason="this machine does not let tests mount a small tmpfs")
def test_a_full_disk_and_a_read_only_one_are_named(tmp_path: Path) -> None:
    found = in_a_process("full", tmp_path, "unshare", "--mount", "--user", "--map-root-user")
    assert len(found) > 60
    for name, (full, read_only) in found.items():
        for said, expected in ((full, "The disk is full: free space"), (read_only, "The disk is read-only")):
            assert said.startswith("StoreError"), f"{name}: {said}"
            assert expected in said, f"{name}: {said}"


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [flipped, lambda content: content[: len(content) // 2]], ids=["flip", "cut"]
)
def test_what_is_damaged_is_named_and_the_version_before_loads(tmp_path: Path, damage: Any) -> None:
    tried = 0
    for name, config in whole_catalog.entries(tmp_path).items():
        if not whole_catalog.is_versioned(config):
            continue
        whole_catalog.dataset(name, config, "v1").save(whole_catalog.example(name, config))
        before = whole_catalog.files(tmp_path)
        whole_catalog.dataset(name, config, "v2").save(whole_catalog.example(name, config))
        for path in whole_catalog.files(tmp_path) - before:
            content = path.read_bytes()
            path.write_bytes(damage(content))
            with pytest.raises((DatasetError, StoreError)) as caught:
                whole_catalog.read(whole_catalog.dataset(name, config, None, "v2").load())
            cause = caught.value if isinstance(caught.value, StoreError) else caught.value.__cause__
            assert isinstance(cause, StoreError), (path, cause)
            assert path.name in str(cause) or path.parent.name in str(cause), (path, cause)
            path.write_bytes(content)
            tried += 1
        whole_catalog.read(whole_catalog.dataset(name, config, None, "v1").load())
        whole_catalog.read(whole_catalog.dataset(name, config, None, "v2").load())
    assert tried > 130
