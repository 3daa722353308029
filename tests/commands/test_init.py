"""A project of one's own is one that Kedro and the other commands find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from helix_sae.cli import app
from helix_sae.commands.init import make_project
from helix_sae.commands.project import find_project
from helix_sae.errors import ConfigurationError


def test_a_project_that_kedro_knows(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path / "mine")], catch_exceptions=False)
    assert done.exit_code == 0
    made = tmp_path / "mine"
    assert find_project(made / "data" / "01_raw") == made
    assert (made / "data" / "06_models" / "helix_mini" / "config.json").is_file()
    assert list((made / "conf" / "local").iterdir()) in ([], [made / "conf" / "local" / ".gitkeep"])
    listed = subprocess.run(
        [Path(sys.executable).with_name("kedro"), "registry", "list"],
        cwd=made, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert "causal_acdc" in listed.stdout


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="is not empty"):
        make_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
