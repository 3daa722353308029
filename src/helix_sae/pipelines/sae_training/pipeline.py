"""Wiring of the SAE training pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.sae_training import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Activations to autoencoders and their sparse codes."""
    return Pipeline(
        [
            node(
                nodes.train,
                ["activations", "mrna_table", "params:sae_training"],
                ["sae_checkpoints", "training_history", "sae_metrics"],
                name="train_autoencoders",
            ),
            node(
                nodes.encode,
                ["activations", "sae_checkpoints", "mrna_table"],
                ["sparse_codes", "sequence_codes"],
                name="encode_activations",
            ),
            node(
                nodes.draw_training,
                ["training_history", "sae_metrics", "sequence_codes"],
                ["training_history_figure", "feature_density_figure"],
                name="draw_training",
            ),
        ]
    )
