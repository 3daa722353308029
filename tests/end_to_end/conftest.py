"""One run of the whole project in the environment ``test``, shared by every test that looks at its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock
from kedro_runs import FinishedRun, run_kedro

COMMANDS = (("run", "--pipelines=simulation,pretraining"), ("run",), ("run", "--pipelines=sae_sweep"))


@pytest.fixture(scope="session")
def finished_run(project_path: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> FinishedRun:
    """Simulated records and a tiny model, the default pipeline, and a sweep. Workers of pytest-xdist share one run."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    root = shared / "finished-run"
    said = shared / "finished-run.json"
    with FileLock(shared / "finished-run.lock"):
        if not said.exists():
            code, printed = 0, ""
            for arguments in COMMANDS:
                if code == 0:
                    done = run_kedro(project_path, root, *arguments, timeout=1000)
                    code, printed = done.returncode, printed + done.stdout + done.stderr
            said.write_text(json.dumps({"code": code, "output": printed}), encoding="utf-8")
    result = json.loads(said.read_text(encoding="utf-8"))
    assert result["code"] == 0, result["output"]
    return FinishedRun(project_path, root, result["output"])
