"""Wiring of the pretraining pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.pretraining.nodes import evaluate_mini, train_mini


def create_pipeline(**_: object) -> Pipeline:
    """From simulated sequences to the ``helix_mini`` checkpoint."""
    return Pipeline(
        [
            node(
                train_mini,
                inputs=["pretraining_table", "params:pretraining"],
                outputs=["helix_mini", "pretraining_history"],
                name="train_mini",
            ),
            node(
                evaluate_mini,
                inputs=["helix_mini", "pretraining_table", "pretraining_heldout_table", "params:pretraining"],
                outputs="pretraining_scores",
                name="evaluate_mini",
            ),
        ]
    )
