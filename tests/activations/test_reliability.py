"""A store that loses nothing: killed at any moment, on a full or read-only disk, by two runs at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from activation_toys import (
    SITES,
    files_of,
    save_until_a_file_is_long,
    save_until_second_rename,
    save_version,
    toy_plan,
    toy_table,
)
from kedro.io.core import Version

from helix_sae.activations import Activations
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.shards.files import parse_shard_path
from helix_sae.temporary import temporary_prefix

N_KILLS = 20


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start quickly: forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["activation_toys"])
    with pytest.MonkeyPatch.context() as patch:
        # Until Python 3.13 the server does not get this process's sys.path and imports nothing beforehand.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


def open_version(root: Path, version: str | None = None) -> Activations:
    return ActivationsDataset(filepath=str(root), version=Version(version, None)).load()


def read_everything(store: Activations) -> np.ndarray:
    return np.concatenate([store.get(name, SITES[1]) for name in store.sequence_ids])


def finished_keys(root: Path) -> set[str]:
    named = (parse_shard_path(str(path)) for path in (root / "shards").rglob("*"))
    return {name[0] for name in named if name is not None}


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path, processes: ForkServerContext) -> None:
    table = toy_table(120)
    undisturbed, root, log = tmp_path / "whole" / "a", tmp_path / "killed" / "a", tmp_path / "log"
    n_shards = len(toy_plan(table).shards)
    assert n_shards > 15
    work_of = {
        f"{len(s.sequences)} {sum(int(t.ids.sum()) for t in s.tokens())}": s.key
        for s in toy_plan(table).shards
    }
    assert len(work_of) == n_shards
    began = time.perf_counter()
    save_version(str(undisturbed), "v", toy_plan(table, seconds=0.02))
    duration = time.perf_counter() - began

    rng = np.random.default_rng(0)
    done_before: list[set[str]] = []
    kills = 0
    while kills < N_KILLS:
        if (root / "v" / "a" / "manifest.json").exists():
            # Finished before its kill came: begin anew with other moments.
            read_everything(open_version(root))
            shutil.rmtree(root)
            log.unlink()
            done_before = []
        done_before.append(finished_keys(root))
        recorded = len(log.read_text().splitlines()) if log.exists() else 0
        process = processes.Process(
            target=save_version, args=(str(root), "v", toy_plan(table, seconds=0.02, log=log)), daemon=True
        )
        process.start()
        process.join(rng.uniform(0, duration))
        process.kill()
        process.join()
        kills += 1
        recomputed = (
            [work_of[line] for line in log.read_text().splitlines()[recorded:]] if log.exists() else []
        )
        assert not set(recomputed) & done_before[-1]
        visible = ActivationsDataset(filepath=str(root), version=Version(None, None)).exists()
        assert visible == (root / "v" / "a" / "manifest.json").exists()
    if not (root / "v" / "a" / "manifest.json").exists():
        save_version(str(root), "v", toy_plan(table))
    assert files_of(root) == files_of(undisturbed)
    read_everything(open_version(root))


@pytest.mark.slow
def test_killed_before_every_rename_leaves_nothing_behind(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    plan = toy_plan(toy_table(30))
    undisturbed, root = tmp_path / "whole" / "a", tmp_path / "killed" / "a"
    save_version(str(undisturbed), "v", plan)
    left: list[set[str]] = []
    for _ in range(len(plan.shards) + 1):
        process = processes.Process(target=save_until_second_rename, args=(str(root), "v", plan))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        left.append({name.split("/.tmp-")[0] for name in files_of(root) if ".tmp-" in name})
    # Each process finishes one shard and leaves the next half-written; the last two leave index and manifest.
    assert left == [*({f"shards/{spec.key[:2]}"} for spec in plan.shards[1:]), {"v/a"}, {"v/a"}]
    save_version(str(root), "v", plan)
    assert files_of(root) == files_of(undisturbed)


@pytest.mark.slow
def test_killed_in_the_middle_of_writing_a_shard(tmp_path: Path, processes: ForkServerContext) -> None:
    plan = toy_plan(toy_table(30))
    undisturbed, root = tmp_path / "whole" / "a", tmp_path / "killed" / "a"
    save_version(str(undisturbed), "v", plan)
    process = processes.Process(target=save_until_a_file_is_long, args=(str(root), "v", plan, 1000))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGXFSZ
    assert files_of(root)
    assert all(".tmp-" in name for name in files_of(root))
    save_version(str(root), "v", plan)
    assert files_of(root) == files_of(undisturbed)


def test_others_may_read_what_they_may_read_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_version(str(tmp_path / "a"), "v", toy_plan(toy_table(5)))
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_two_runs_at_once_end_with_two_whole_versions(tmp_path: Path, processes: ForkServerContext) -> None:
    root = tmp_path / "a"
    plans = {"v1": toy_plan(toy_table(60), seconds=0.01), "v2": toy_plan(toy_table(80), seconds=0.01)}
    running = [processes.Process(target=save_version, args=(str(root), v, plan)) for v, plan in plans.items()]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    for version, plan in plans.items():
        save_version(str(tmp_path / "alone" / "a"), version, plan)
        np.testing.assert_array_equal(
            read_everything(open_version(root, version)),
            read_everything(open_version(tmp_path / "alone" / "a", version)),
        )
    assert not [name for name in files_of(root) if ".tmp" in name]


SCRIPT = """
import json, os, resource, signal, subprocess, sys
sys.path[:0] = {path!r}
from activation_toys import save_version, toy_plan, toy_table
from kedro.io.core import DatasetError

def attempt(version, n, seed=0, **options):
    try:
        save_version(root, version, toy_plan(toy_table(n, seed), **options))
        return None
    except DatasetError as error:
        return [type(error.__cause__).__name__, str(error)]

root, answers = {root!r}, {{}}
{body}
print(json.dumps(answers))
"""


def in_a_process(root: Path, body: str, *prefix: str) -> dict[str, list[str] | None]:
    """Run a script that saves versions and prints what each attempt gave."""
    script = SCRIPT.format(path=[str(Path(__file__).parent)], root=str(root), body=body)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_limit_on_file_size_leaves_the_earlier_version(tmp_path: Path) -> None:
    root = tmp_path / "a"
    save_version(str(root), "v1", toy_plan(toy_table(10)))
    body = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
answers["limited"] = attempt("v2", 90, 1, shard_tokens=100_000)
"""
    before = files_of(root)
    kind, message = in_a_process(root, body)["limited"] or ("", "")
    assert kind == "StoreError"
    assert "cannot be written" in message
    assert files_of(root) == before
    read_everything(open_version(root))


def mounts_allowed() -> bool:
    command = ["unshare", "--mount", "--user", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not mounts_allowed(), reason="this machine does not let tests mount a small tmpfs")
def test_a_full_disk_and_a_read_only_one(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    body = f"""
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", {str(disk)!r}], check=True)
answers["fits"] = attempt("v1", 20)
other = Path({str(disk)!r}) / "something else"
other.write_bytes(bytes(32 * 1024))
answers["full"] = attempt("v2", 400, 1)
other.unlink()
answers["fits again"] = attempt("v3", 20)
subprocess.run(["mount", "-o", "remount,ro", {str(disk)!r}], check=True)
answers["read-only"] = attempt("v4", 25)
from activation_toys import files_of
answers["files"] = sorted(name for name in files_of(Path(root)) if "shards" not in name or ".tmp" in name)
from kedro.io.core import Version
from helix_sae.datasets.activations import ActivationsDataset
store = ActivationsDataset(filepath=root, version=Version("v1", None)).load()
answers["read"] = [len(store.get(name, store.sites[0])) for name in store.sequence_ids]
"""
    answers = in_a_process(disk / "a", body, "unshare", "--mount", "--user", "--map-root-user")
    assert answers["fits"] is None
    assert answers["full"] is not None
    assert answers["full"][0] == "StoreError"
    assert "The disk is full: free space and run again" in answers["full"][1]
    assert answers["fits again"] is None
    assert answers["read-only"] is not None
    assert "The disk is read-only" in answers["read-only"][1]
    assert answers["files"] == [
        f"v{i}/a/{name}" for i in (1, 3) for name in ("index.parquet", "manifest.json")
    ]
    assert answers["read"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a folder without permission")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    root = tmp_path / "a"
    save_version(str(root), "v1", toy_plan(toy_table(5)))
    root.chmod(0o555)
    try:
        answers = in_a_process(root, 'answers["denied"] = attempt("v2", 9, 1)')
        assert answers["denied"] is not None
        assert "Permission is denied" in answers["denied"][1]
        read_everything(open_version(root))
    finally:
        root.chmod(0o755)


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    answers = in_a_process(tmp_path / "a", 'answers["blocked"] = attempt("v1", 3)')
    assert answers["blocked"] is not None


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "a"
    save_version(str(root), "v1", toy_plan(toy_table(5)))
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    folder = next((root / "shards").iterdir())
    machine = temporary_prefix().removesuffix(f"{os.getpid()}-")
    left = folder / f"{machine}{dead.stdout.strip()}-0"
    alive = folder / f"{machine}{os.getpid()}-99"
    elsewhere = folder / ".tmp-another-host-1-0"
    for path in (left, alive, elsewhere):
        path.touch()
    save_version(str(root), "v2", toy_plan(toy_table(5)))
    assert [path.exists() for path in (left, alive, elsewhere)] == [False, True, True]
