"""The pipelines by name, and what a bare ``kedro run`` does."""

from __future__ import annotations

from kedro.framework.project import find_pipelines
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline

DEFAULT_PIPELINES = ("ingestion", "extraction", "sae_training", "correlation", "causal_acdc", "reporting")


def register_pipelines() -> dict[str, Pipeline]:
    """Find the pipelines under ``helix_sae.pipelines``; the default one goes from sequences to the report.

    ``kedro run --pipelines=<name>`` asks for some names only, and then only their packages are imported.

    Returns
    -------
    dict of str to Pipeline
        The pipelines asked for, and ``__default__`` when all its parts are among them.

    Raises
    ------
    ImportError
        If the package of a pipeline is broken. Kedro alone would warn and run without it.
    """
    try:
        pipelines = find_pipelines(raise_errors=True)
    except ImportError as error:
        if error.__cause__ is not None:
            raise
        # A name that no package has: Kedro's own message suggests the nearest ones.
        return {}
    pipelines = {
        name: made if name == "__default__" else _in_a_box(made, name) for name, made in pipelines.items()
    }
    if set(DEFAULT_PIPELINES) <= pipelines.keys():
        pipelines["__default__"] = sum((pipelines[name] for name in DEFAULT_PIPELINES), Pipeline([]))
    return pipelines


def _in_a_box(made: Pipeline, name: str) -> Pipeline:
    """The pipeline with its nodes in a namespace, which Kedro-Viz draws as one box.

    Nodes are called ``<pipeline>.<node>``; names of datasets and parameters stay as they are.
    """
    parameters = {given for given in made.inputs() if is_parameter(given)}
    return Pipeline(
        made,
        namespace=name,
        inputs=made.inputs() - parameters,
        parameters=parameters,
        outputs=made.all_outputs(),
    )
