"""The quickstart notebook runs on the results of a finished run, and is stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from kedro_runs import FinishedRun, environment
from nbclient import NotebookClient


@pytest.fixture(scope="module")
def notebook(project_path: Path) -> nbformat.NotebookNode:
    return nbformat.read(project_path / "notebooks" / "01_quickstart.ipynb", as_version=4)


def test_it_is_stored_without_outputs(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_on_the_results_of_a_run(
    notebook: nbformat.NotebookNode, finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(finished_run.root).items():
        monkeypatch.setenv(name, value)
    folder = finished_run.project / "notebooks"
    client = NotebookClient(
        notebook.copy(), timeout=280, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    done = client.execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 4
    assert any("<i class=" in o.get("data", {}).get("text/html", "") for o in outputs)
    assert any("•" in o.get("text", "") for o in outputs)
