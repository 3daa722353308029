"""The notebooks run on the results of a finished run, and what is stored of them names no machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from kedro_runs import FinishedRun, environment
from nbclient import NotebookClient

NOTEBOOKS = sorted(path.name for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SHOWN = {
    "01_quickstart.ipynb": (4, ["<i class=", "•"]),
    "02_training_and_choosing.ipynb": (2, ["explained_variance", "certified"]),
    "03_own_data.ipynb": (0, ["column 'my_utr'", "autoencoders", "explained_variance", "AnnData object"]),
    "04_causes.ipynb": (3, ["uaug_make", "with the upstream AUG", "<i class="]),
}
"""Of each notebook: pictures at least, and what its outputs have."""

OWN = "03_own_data.ipynb"
"""It begins with a file, not with the results of a run, and uses the model and autoencoders that come along."""

LARGEST = 500_000
"""Bytes of a notebook with its outputs."""

ABSOLUTE = re.compile(r"(?<![\w.<:/])/[\w.-]+/")
"""How an absolute path begins, on whatever machine."""


def read(project: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(project / "notebooks" / name, as_version=4)


def test_every_notebook_is_known_here() -> None:
    assert list(SHOWN) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_stored_is_whole_and_small_and_names_no_machine(project_path: Path, name: str) -> None:
    notebook = read(project_path, name)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    stored = [bool(cell.outputs) for cell in cells]
    # The first cell opens the catalog and says nothing.
    assert all(stored[1:]), "it is read where nothing runs, too"
    assert (project_path / "notebooks" / name).stat().st_size < LARGEST
    said = json.dumps([cell.outputs for cell in cells])
    for place in ("/tmp/", "/home/", "/root/", "file:/", "Traceback"):
        assert place not in said
    outputs = [output for cell in cells for output in cell.outputs]
    texts = [output.get("text", "") for output in outputs]
    for output in outputs:
        shown = output.get("data", {}).items()
        texts += [json.dumps(value) for kind, value in shown if not kind.startswith("image/")]
    assert [found for text in texts for found in ABSOLUTE.findall(text)] == []


def test_a_path_of_a_machine_is_noticed() -> None:
    assert ABSOLUTE.findall("see /check/main/data and '/srv/x/y'") == ["/check/", "/srv/"]
    assert ABSOLUTE.findall("data/latest/report.html, 3/4, <td>a</td>, https://a.org/b/c") == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_on_the_results_of_a_run(
    name: str, finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment(finished_run.root).items():
        monkeypatch.setenv(variable, value)
    if name == OWN:
        monkeypatch.delenv("KEDRO_ENV")
    folder = finished_run.project / "notebooks"
    client = NotebookClient(
        read(finished_run.project, name),
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    done = client.execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    n_pictures, words = SHOWN[name]
    assert len(pictures) >= n_pictures
    said = json.dumps(outputs, ensure_ascii=False)
    for text in words:
        assert text in said
