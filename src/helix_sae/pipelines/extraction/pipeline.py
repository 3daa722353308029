"""Wiring of the extraction pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.extraction import nodes


def create_pipeline(**_: object) -> Pipeline:
    """The mRNA table and a model to the store of activations."""
    return Pipeline(
        [
            node(
                nodes.extract,
                ["mrna_table", "model", "params:extraction"],
                "activations",
                name="extract_activations",
            )
        ]
    )
