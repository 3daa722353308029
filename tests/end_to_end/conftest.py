"""One run of the whole project in the environment ``test``, shared by every test that looks at its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock


class FinishedRun(NamedTuple):
    """A project after ``kedro run``.

    Attributes
    ----------
    project : Path
        The repository.
    root : Path
        ``data_root`` of the run.
    environment : dict
        Environment variables with which Kedro finds the run's results.
    output : str
        What the run printed.
    """

    project: Path
    root: Path
    environment: dict[str, str]
    output: str

    def kedro(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Another Kedro command on the same data."""
        return run_kedro(self.project, self.environment, *arguments, timeout=timeout)

    def newest(self, name: str) -> Path:
        """The file of a versioned dataset's latest version, by the name of its file."""
        (folder,) = [p for p in self.root.rglob(name) if p.is_dir()]
        return sorted(folder.iterdir())[-1] / name


def run_kedro(
    project: Path, environment: dict[str, str], *arguments: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """``kedro ARGUMENTS`` in a process of its own."""
    return subprocess.run(
        [Path(sys.executable).with_name("kedro"), *arguments],
        cwd=project, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished_run(project_path: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> FinishedRun:
    """Simulated records and a tiny model, then the default pipeline. Workers of pytest-xdist share one run."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    root = shared / "finished-run"
    environment = {
        **os.environ,
        "HELIX_SAE_TEST_ROOT": root.as_posix(),
        "KEDRO_ENV": "test",
        "COLUMNS": "160",
    }
    said = shared / "finished-run.json"
    with FileLock(shared / "finished-run.lock"):
        if not said.exists():
            code, printed = 0, ""
            for arguments in (("run", "--pipelines=simulation,pretraining"), ("run",)):
                if code == 0:
                    done = run_kedro(project_path, environment, *arguments, timeout=1000)
                    code, printed = done.returncode, printed + done.stdout + done.stderr
            said.write_text(json.dumps({"code": code, "output": printed}), encoding="utf-8")
    result = json.loads(said.read_text(encoding="utf-8"))
    assert result["code"] == 0, result["output"]
    return FinishedRun(project_path, root, environment, result["output"])
