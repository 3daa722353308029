"""Mistakes of a user under ``kedro run`` are one screen; what nobody foresaw keeps its trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DatasetError
from kedro.validation import ParameterValidationError

from helix_sae.commands.project import named_cause
from helix_sae.errors import DataError


def test_the_innermost_error_of_the_package_is_the_one_that_is_shown() -> None:
    error = DatasetError("Failed while loading data")
    error.__cause__ = DataError("x.csv, line 3: no")
    assert named_cause(error) is error.__cause__
    assert named_cause(ValueError("a bug")) is None


def test_a_parameter_is_shown_without_the_links_of_its_validation() -> None:
    told = str(
        named_cause(ParameterValidationError("Parameter 'a': x\n  For further information visit https://y"))
    )
    assert "Parameter 'a': x" in told
    assert "visit" not in told


def kedro_run(project: Path, folder: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
    """`kedro run` of the ingestion, with all it writes in a folder of its own."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "kedro",
            "run",
            "--env",
            "test",
            "--pipelines=ingestion",
            "--params",
            ",".join(parameters),
        ],
        cwd=project,
        env={**os.environ, "HELIX_SAE_TEST_ROOT": str(folder), "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_each_mistake_of_a_user_is_one_screen(project_path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("sequence,cds_start\nACGT,\nACGX,\n")
    mistakes = {
        f"sequences={bad}": [
            "bad.csv, line 3, sequence: letter 'X' at position 3",
            "on_bad_record: set_aside",
        ],
        f"sequences={tmp_path}/nowhere.csv": [
            "There is no such file or folder:",
            "nowhere.csv",
            "Correct the path",
        ],
        "ingestion.on_bad_recor=error": ["on_bad_recor", "Extra inputs are not permitted", "conf/base"],
    }
    for parameters, wanted in mistakes.items():
        done = kedro_run(project_path, tmp_path, parameters)
        assert done.returncode == 1
        for words in wanted:
            assert words in done.stderr, done.stderr
        assert "that make them first" not in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert len((done.stderr + done.stdout).splitlines()) <= 40
