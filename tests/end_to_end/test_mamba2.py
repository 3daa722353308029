"""The default pipeline on another model than the package's own: Mamba2-mRNA, small and with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kedro_runs import FinishedRun, run_kedro

from helix_sae.models.mamba2.model import build_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ENTRY = """
model:
  type: helix_sae.datasets.model.ModelDataset
  filepath: {folder}
"""


def test_the_default_pipeline_on_mamba2(finished_run: FinishedRun, project_path: Path, tmp_path: Path):
    """On the records of the shared run; only the catalog's entry of the model is another."""
    checkpoint, root, conf = tmp_path / "mamba2", tmp_path / "run", tmp_path / "conf"
    build_model(
        0, hidden_size=32, num_heads=4, head_dim=16, state_size=8, n_groups=2, num_hidden_layers=3
    ).save(checkpoint)
    shutil.copytree(finished_run.root / "01_raw", root / "01_raw")
    shutil.copytree(project_path / "conf", conf)
    entry = conf / "test" / "extraction" / "catalog.yml"
    entry.parent.mkdir(exist_ok=True)
    entry.write_text(ENTRY.format(folder=checkpoint.as_posix()), encoding="utf-8")
    done = run_kedro(project_path, root, "run", "--conf-source", str(conf), timeout=1000)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    said = " ".join((done.stdout + done.stderr).split())
    assert said.count("Mamba2-mRNA: found in the installed forward") == 1
    run = FinishedRun(project_path, root, said)
    effects = run.table("feature_effects")
    assert set(effects["site"]) == {f"layers.{k}.mixer" for k in range(3)}
    assert (effects["estimator"] == "exact").all()
    summary = json.loads(run.newest("08_reporting/run_summary.json").read_text(encoding="utf-8"))
    assert summary["effects"]["run"]
    assert summary["circuit"]["run"]
