"""``kedro run --env mlflow`` keeps parameters, figures of merit and the report in a store of MLflow on this machine.

MLflow asks for older packages than the lock files have, so it lives in an environment of its own on top of this one:
``make test-mlflow`` creates it and runs this.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
from pathlib import Path

import pytest

PYTHON = ".venv-mlflow/bin/python"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def python_of(project: Path) -> Path:
    """The Python that has kedro-mlflow."""
    python = Path(os.environ.get("HELIX_SAE_MLFLOW_PYTHON", project / PYTHON))
    if not python.exists():
        pytest.skip("kedro-mlflow has an environment of its own (make test-mlflow)")
    return python


def test_a_run_is_kept_with_its_parameters_figures_and_report(project_path: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [f"{''.join(draw.choices('ACGU', k=40))},{i}.5" for i in range(20)]
    (tmp_path / "mine.csv").write_text("\n".join(["utr,te", *rows, ""]))
    store = tmp_path / "runs.db"
    given = f"sequences={tmp_path}/mine.csv,data_root={tmp_path}/data,ingestion.max_records=17"
    done = subprocess.run(
        [python_of(project_path), "-m", "kedro", "run", "--env", "mlflow", "--pipelines=ingestion,reporting", "--params", given],
        cwd=project_path,
        env={
            **os.environ,
            "PYTHONPATH": str(project_path / "src"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
            "HELIX_SAE_MLFLOW_ARTEFACTS": str(tmp_path / "artefacts"),
        },
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with sqlite3.connect(store) as opened:
        (status,) = opened.execute("select status from runs").fetchone()
        parameters = dict(opened.execute("select key, value from params"))
        figures = dict(opened.execute("select key, value from metrics"))
    summary = json.loads((tmp_path / "data" / "latest" / "summary.json").read_text(encoding="utf-8"))
    assert status == "FINISHED"
    assert parameters["ingestion.max_records"] == "17"
    assert parameters["ingestion.split.discovery"] == "0.7"
    assert figures["data.n_records"] == summary["data"]["n_records"] == 17
    assert figures["autoencoders.run"] == 0
    (report,) = (tmp_path / "artefacts").rglob("report.html")
    assert report.read_bytes() == (tmp_path / "data" / "latest" / "report.html").read_bytes()
