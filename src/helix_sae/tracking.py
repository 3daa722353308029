"""What MLflow is told of a run, where kedro-mlflow (the extra ``mlflow``, ``--env mlflow``) has begun to track it.

kedro-mlflow begins a run of MLflow for each one of Kedro's and ends it. Here its parameters are written one
by one, so that runs can be compared by them, with the report's figures of merit and the report itself.
"""

from __future__ import annotations

import sys
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from helix_sae.provenance import describe_run
from helix_sae.run_history import flat, merits_of

_REPORT, _SUMMARY = "run_report", "run_summary"
_AT_ONCE = 100
"""Parameters that MLflow takes in one request."""
_LONGEST = 500
"""Characters of a parameter's value."""


class TrackingHooks:
    """Write parameters, figures of merit and report into the run of MLflow that is active; nothing where there is none."""

    @hook_impl(tryfirst=True)  # before kedro-mlflow ends its run
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]
    ) -> None:
        """Tell the active run of MLflow what this one was made with, and what came of it."""
        mlflow: Any = sys.modules.get("mlflow")
        if mlflow is None or mlflow.active_run() is None:
            return
        described = describe_run(run_params, pipeline, catalog)
        parameters = {name: str(value)[:_LONGEST] for name, value in flat(described["parameters"])}
        names = list(parameters)
        for start in range(0, len(names), _AT_ONCE):
            mlflow.log_params({name: parameters[name] for name in names[start : start + _AT_ONCE]})
        made = pipeline.all_outputs()
        if _SUMMARY in made:
            summary = catalog[_SUMMARY].load()
            mlflow.log_metrics({name: float(value) for name, value in merits_of(summary).items()})
            mlflow.log_dict(summary, "summary.json")
        if _REPORT in made:
            mlflow.log_text(catalog[_REPORT].load(), "report.html")
