"""The scripts of the site run as they stand, and say what the pages promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def run(project_path: Path, tmp_path: Path):
    """Run a script of ``docs/examples`` in an empty folder; returns what it printed."""

    def in_empty_folder(name: str) -> str:
        script = project_path / "docs" / "examples" / name
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return in_empty_folder


def test_training_on_arrays_explains_them_and_leaves_an_autoencoder(run, tmp_path: Path) -> None:
    printed = run("train_on_arrays.py")
    explained = float(printed.split("explained variance ")[1].split(",")[0])
    assert 0.9 < explained <= 1
    assert {path.name for path in (tmp_path / "my_saes" / "topk").iterdir()} >= {
        "cfg.json",
        "sae_weights.safetensors",
    }


def test_associating_codes_finds_the_feature_that_was_planted(run) -> None:
    printed = run("associate_codes.py")
    rows = printed.strip().splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["7"]
    assert rows[0].endswith("True")
