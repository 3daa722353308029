"""What one run reads is of one lineage: another dictionary, or other sequences, are never joined with what is there."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
from kedro_runs import FinishedRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def copied(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    """The finished run, to be changed."""
    shutil.copytree(finished_run.root, tmp_path / "root")
    return finished_run._replace(root=tmp_path / "root")


def test_provenance_goes_up_to_the_raw_files_and_the_model(finished_run: FinishedRun) -> None:
    path = finished_run.newest("08_reporting/run_report.html").parent / "provenance.json"
    lineage = json.loads(path.read_text(encoding="utf-8"))["lineage"]
    assert lineage["raw_sequences"]["url"] == f"{finished_run.root}/01_raw/demo"
    assert len(lineage["raw_sequences"]["sha256"]) == 64
    assert len(lineage["model"]["fingerprint"]) == 64
    assert lineage["model"]["url"] == f"{finished_run.root}/06_models/helix_mini"
    assert {"mrna_table", "activations", "sae_checkpoints", "sequence_codes", "associations"} <= set(lineage)


def test_nothing_is_missing_after_a_run(finished_run: FinishedRun) -> None:
    done = finished_run.kedro("run", "--only-missing-outputs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipping all" in done.stdout + done.stderr


def test_a_report_of_two_dictionaries_is_refused(copied: FinishedRun) -> None:
    reports = list((copied.root / "08_reporting" / "run_report.html").iterdir())
    other = ("--params", "sae_training.seed=777")
    done = copied.kedro("run", "--pipelines=sae_training", *other)
    assert done.returncode == 0, done.stdout + done.stderr
    refused = copied.kedro("run", "--pipelines=reporting")
    said = " ".join((refused.stdout + refused.stderr).split())
    assert refused.returncode != 0
    assert "The inputs of this run do not belong together" in said
    assert "kedro run --env test --pipelines=correlation,causal_acdc,reporting" in said
    assert list((copied.root / "08_reporting" / "run_report.html").iterdir()) == reports


def test_codes_of_other_sequences_are_refused(copied: FinishedRun) -> None:
    own = copied.root / "own.fa"
    draw = random.Random(0)
    own.write_text("".join(f">s{i}\n{''.join(draw.choices('ACGU', k=60))}\n" for i in range(40)))
    done = copied.kedro("run", "--pipelines=ingestion", "--params", f"sequences={own}")
    assert done.returncode == 0, done.stdout + done.stderr
    refused = copied.kedro("run", "--pipelines=correlation", "--params", f"sequences={own}")
    said = " ".join((refused.stdout + refused.stderr).split())
    assert refused.returncode != 0
    assert "KeyError" not in said
    assert "--pipelines=extraction,sae_training,correlation" in said


def test_other_sequences_are_no_missing_output_that_is_there(copied: FinishedRun) -> None:
    """A second input is read, recorded and found again; the first one is not reported as done."""
    own = copied.root / "own.fa"
    draw = random.Random(1)
    own.write_text("".join(f">s{i}\n{''.join(draw.choices('ACGU', k=60))}\n" for i in range(20)))
    command = (
        "run",
        "--only-missing-outputs",
        "--pipelines=ingestion,extraction",
        "--params",
        f"sequences={own}",
    )
    done = copied.kedro(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipping all" not in done.stdout + done.stderr
    table = pd.read_parquet(copied.newest("03_primary/mrna_table.parquet"))
    assert set(table["sequence_id"]) == {f"s{i}" for i in range(20)}
    again = copied.kedro(*command)
    assert "Skipping all" in again.stdout + again.stderr
