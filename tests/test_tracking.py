"""What the run of MLflow that is active is told; a stand-in takes it down. The real one: tests/tracking."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from helix_sae.tracking import TrackingHooks

SUMMARY = {"headlines": ["Found."], "data": {"run": True, "n_records": 3, "deep": {"er": {"number": 1.0}}}}


def told(monkeypatch: pytest.MonkeyPatch, *, active: bool, outputs: list[str]) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    kept = {
        name: (lambda *given, name=name: calls.append((name, *given)))
        for name in ("log_params", "log_metrics", "log_dict", "log_text")
    }
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(active_run=lambda: active or None, **kept))
    many = {f"p{i}": i for i in range(150)}
    catalog = DataCatalog(
        {
            "params:sae_training": MemoryDataset({"seed": 1, "saes": {"relu": {"k": None}}, **many}),
            "run_summary": MemoryDataset(SUMMARY),
            "run_report": MemoryDataset("<html>"),
        }
    )
    pipeline = Pipeline([node(lambda p: None, "params:sae_training", outputs, name="x")])
    hooks = _create_hook_manager()
    hooks.register(TrackingHooks())
    hooks.hook.after_pipeline_run(run_params={}, run_result={}, pipeline=pipeline, catalog=catalog)
    return calls


def test_parameters_figures_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = told(monkeypatch, active=True, outputs=["run_summary", "run_report"])
    parameters = [call[1] for call in calls if call[0] == "log_params"]
    assert [len(part) for part in parameters] == [100, 52], "MLflow takes a hundred at once"
    assert parameters[0] | parameters[1] == {
        "sae_training.seed": "1",
        "sae_training.saes.relu.k": "None",
        **{f"sae_training.p{i}": str(i) for i in range(150)},
    }
    assert ("log_metrics", {"data.run": 1.0, "data.n_records": 3.0}) in calls
    assert ("log_text", "<html>", "report.html") in calls


def test_a_run_without_a_report_and_one_that_nobody_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {call[0] for call in told(monkeypatch, active=True, outputs=["mrna_table"])} == {"log_params"}
    assert told(monkeypatch, active=False, outputs=["run_summary", "run_report"]) == []
