"""The doctor finds the shipped model well, and says what is wrong with a folder that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helix_sae.cli import app
from helix_sae.commands.doctor import examine
from helix_sae.models.contract import Model


def test_the_shipped_model_is_well(project_path: Path, tmp_path: Path) -> None:
    found = {f.what: f for f in examine(project_path / "data" / "06_models" / "helix_mini", tmp_path)}
    assert found["Model"].well, found["Model"].found
    assert [found[what].well for what in ("Context", "Batches", "Padding")] == [True, True, True]
    assert found["torch"].well


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--model", str(tmp_path)])
    assert done.exit_code == 1
    assert "!! Model" in done.output


@pytest.mark.parametrize(
    ("what", "wrong"),
    [("Batches", lambda h, ids: h + h.mean(0)), ("Padding", lambda h, ids: h * ids.shape[1]), ("Context", lambda h, ids: h * 0 + 1)],
)  # fmt: skip
def test_a_model_that_computes_wrong_is_told(
    what: str, wrong: Any, project_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Model.hidden
    monkeypatch.setattr(Model, "hidden", lambda self, ids: wrong(plain(self, ids), ids))
    found = {f.what: f for f in examine(project_path / "data" / "06_models" / "helix_mini", tmp_path)}
    assert found[what].well is False
