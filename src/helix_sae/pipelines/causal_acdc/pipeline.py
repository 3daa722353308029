"""Wiring of the causal pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.causal_acdc import nodes, reading

_PARAMETERS = "params:causal_acdc"
_SETTING = ["helix_model", "sae_checkpoints", "probe", "sequence_pairs"]


def create_pipeline(**_: object) -> Pipeline:
    """A model, its autoencoders and the mRNA table to what the prediction depends on."""
    return Pipeline(
        [
            node(
                reading.embed,
                ["mrna_table", "helix_model", _PARAMETERS],
                "embeddings",
                name="embed_sequences",
            ),
            node(
                reading.read_out,
                ["embeddings", "mrna_table", "helix_model", _PARAMETERS],
                ["probe", "probe_metrics", "probe_predictions"],
                name="fit_probe",
            ),
            node(
                reading.pair,
                ["mrna_table", "designed_pairs", _PARAMETERS],
                ["sequence_pairs", "pair_exclusions"],
                name="pair_sequences",
            ),
            node(
                nodes.estimate,
                [*_SETTING, _PARAMETERS],
                ["effects_atp", "effects_ig"],
                name="estimate_effects",
            ),
            node(
                nodes.measure,
                [*_SETTING, "effects_atp", _PARAMETERS],
                "effects_exact",
                name="measure_effects",
            ),
            node(
                nodes.summarise,
                ["effects_exact", "effects_atp", "effects_ig", "sequence_pairs", _PARAMETERS],
                [
                    "feature_effects",
                    "estimator_agreement",
                    "designed_effects",
                    "prediction_comparison",
                    "prediction_agreement",
                    "position_effects",
                ],
                name="summarise_effects",
            ),
            node(
                nodes.find_circuit,
                [*_SETTING, "effects_exact", _PARAMETERS],
                ["circuit", "circuit_steps"],
                name="find_circuit",
            ),
            node(
                nodes.connect,
                [*_SETTING, "circuit", "effects_exact", _PARAMETERS],
                ["circuit_edges", "circuit_graph"],
                name="connect_circuit",
            ),
            node(
                nodes.compare,
                [*_SETTING, "effects_atp", "activations", _PARAMETERS],
                [
                    "intervention_curves",
                    "baseline_comparison",
                    "block_ceilings",
                    "block_comparison",
                    "comparison_verdict",
                ],
                name="compare_with_baselines",
            ),
            node(
                nodes.draw,
                [
                    "intervention_curves",
                    "baseline_comparison",
                    "circuit_steps",
                    "feature_effects",
                    "block_comparison",
                    "prediction_comparison",
                    "prediction_agreement",
                    "designed_effects",
                    _PARAMETERS,
                ],
                [
                    "intervention_curves_figure",
                    "baseline_curves_figure",
                    "acdc_figure",
                    "feature_effects_figure",
                    "block_comparison_figure",
                    "predicted_difference_figure",
                    "designed_effects_figure",
                ],
                name="draw_effects",
            ),
            node(
                nodes.draw_circuit,
                ["circuit", "circuit_edges", "circuit_steps", _PARAMETERS],
                "circuit_figure",
                name="draw_circuit",
            ),
        ]
    )
