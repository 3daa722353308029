"""The wheel, built as users would build it: what it brings along is enough to work without a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SHIPPED = ("conf/", "data/", "notebooks/")


@pytest.fixture(scope="module")
def tracked(project_path: Path) -> list[str]:
    """Files that belong to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=project_path, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("only a git clone says which of its files ship")
    return [name for name in listed.stdout.split("\0") if name and (project_path / name).is_file()]


@pytest.fixture(scope="module")
def site(project_path: Path, tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs. It is built from a copy, where no earlier build has left anything."""
    clone, wheels, site = (tmp_path_factory.mktemp(name) for name in ("clone", "wheels", "site"))
    for name in tracked:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project_path / name, clone / name)
    (clone / "conf" / "local" / "mine.yml").write_text("secret: 1\n")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    done = subprocess.run(
        [*pip, "--wheel-dir", wheels, clone], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_modules_configuration_demo_and_model_are_in_it_and_nothing_else(
    site: Path, tracked: list[str]
) -> None:
    installed = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    modules = {name.removeprefix("src/") for name in tracked if name.startswith("src/")}
    project = {
        f"helix_sae/project/{name}"
        for name in tracked
        if name.startswith(SHIPPED) and (not name.endswith(".gitkeep") or name.startswith("conf/local/"))
    }
    made = {"helix_sae/project/pyproject.toml", "helix_sae/project/.telemetry"}
    assert {name for name in installed if ".dist-info/" not in name} == modules | project | made


def test_without_a_clone_there_is_a_project_whose_demo_and_model_load(site: Path, tmp_path: Path) -> None:
    script = """
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from helix_sae.commands.project import find_project
project = find_project()
bootstrap_project(project)
with KedroSession.create(project) as session:
    catalog = session.load_context().catalog
    print(project, len(catalog.load("raw_sequences").records) > 1000, catalog.load("model"), sep="|")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    project, has_demo, model = done.stdout.splitlines()[-1].split("|")
    assert Path(project) == site / "helix_sae" / "project"
    assert has_demo == "True"
    assert str(site) in model
