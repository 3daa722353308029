"""Kedro commands in processes of their own, and what a finished run left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd


def run_kedro(
    project: Path, root: Path, *arguments: str, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """``kedro ARGUMENTS`` in the environment ``test``, whose data lie in ``root``."""
    return subprocess.run(
        [Path(sys.executable).with_name("kedro"), *arguments],
        cwd=project,
        env={**os.environ, **environment(root)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


CALLS = "calls.txt"
"""Where, below the root, a run's attempts to use the network are noted."""


def environment(root: Path) -> dict[str, str]:
    """Variables with which Kedro, also inside a notebook, finds the data of a test run, and may not leave the machine."""
    root.mkdir(parents=True, exist_ok=True)
    path = [str(Path(__file__).with_name("offline")), os.environ.get("PYTHONPATH", "")]
    return {
        "HELIX_SAE_TEST_ROOT": root.as_posix(),
        "KEDRO_ENV": "test",
        "COLUMNS": "160",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "HELIX_SAE_TEST_CALLS": (root / CALLS).as_posix(),
    }


class FinishedRun(NamedTuple):
    """A project after ``kedro run``.

    Attributes
    ----------
    project : Path
        The repository.
    root : Path
        ``data_root`` of the run.
    output : str
        What the run printed.
    """

    project: Path
    root: Path
    output: str

    def kedro(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another Kedro command on the same data."""
        return run_kedro(self.project, self.root, *arguments)

    def newest(self, path: str) -> Path:
        """The newest version of a versioned artefact, by its path below the data root."""
        folder = self.root / path
        # Beside the versions of the activations lie the shards that they share.
        versions = sorted(p for p in folder.iterdir() if (p / folder.name).exists())
        assert versions, f"{folder} holds no version"
        return versions[-1] / folder.name

    def table(self, name: str) -> pd.DataFrame:
        """A table of the reporting layer."""
        return pd.read_csv(self.newest(f"08_reporting/{name}.csv"))
