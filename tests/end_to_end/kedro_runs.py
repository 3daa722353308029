"""Kedro commands on a data folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def kedro(project: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Kedro command on a data folder of its own."""
    environment = {**os.environ, "HELIX_SAE_TEST_ROOT": str(root), "PYTHONPATH": str(project / "src")}
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
