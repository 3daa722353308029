"""Wiring of the SAE training pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.parts import part_node
from helix_sae.pipelines.sae_training import certify, judge, nodes


def create_pipeline(**_: object) -> Pipeline:
    """Activations to autoencoders and their sparse codes."""
    return Pipeline(
        [
            node(
                nodes.train,
                ["activations", "mrna_table", "shipped_autoencoders", "params:sae_training"],
                [
                    "sae_checkpoints",
                    "training_history",
                    "sae_metrics",
                    "sae_stability",
                    "sae_stability_summary",
                    "sae_subspaces",
                ],
                name="train_autoencoders",
            ),
            node(
                nodes.encode,
                ["activations", "sae_checkpoints", "mrna_table", "model", "params:extraction"],
                "sparse_codes",
                name="encode_activations",
            ),
            node(
                nodes.pool,
                ["sparse_codes", "sae_checkpoints", "mrna_table", "model"],
                "sequence_codes",
                name="pool_codes",
            ),
            part_node(
                nodes.draw_training,
                ["training_history", "sae_metrics", "sequence_codes"],
                ["training_history_figure", "feature_density_figure", "sae_pareto_figure"],
                name="draw_training",
                part="figures of the training",
            ),
            part_node(
                certify.draw_stability,
                ["sae_stability"],
                "sae_stability_figure",
                name="draw_stability",
                part="the figure of the stability",
            ),
            part_node(
                judge.run_on,
                ["model", "activations", "sae_checkpoints", "mrna_table", "params:sae_training"],
                ["sae_downstream", "sae_probe_kept"],
                name="run_on_from_reconstructions",
                part="the model run on from reconstructions",
            ),
            part_node(
                judge.probe_concepts,
                [
                    "activations",
                    "sae_checkpoints",
                    "sparse_codes",
                    "nucleotide_annotations",
                    "mrna_table",
                    "params:sae_training",
                ],
                ["sparse_probing", "feature_absorption"],
                name="probe_concepts",
                part="concepts told by few features",
            ),
        ]
    )
