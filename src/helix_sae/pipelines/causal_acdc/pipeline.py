"""Wiring of the causal pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.causal_acdc import circuits, nodes, read_out

_PARAMETERS = "params:causal_acdc"
_SETTING = ["helix_model", "sae_checkpoints", "probe", "sequence_pairs"]


def create_pipeline(**_: object) -> Pipeline:
    """A model, its autoencoders and the mRNA table to what the prediction depends on."""
    return Pipeline(
        [
            node(
                read_out.embed,
                ["mrna_table", "helix_model", _PARAMETERS],
                "embeddings",
                name="embed_sequences",
            ),
            node(
                read_out.tabulate_further,
                ["probe_records", "mrna_table", "params:ingestion", _PARAMETERS],
                "probe_table",
                name="tabulate_probe_records",
            ),
            node(
                read_out.embed,
                ["probe_table", "helix_model", _PARAMETERS],
                "probe_embeddings",
                name="embed_probe_records",
            ),
            node(
                read_out.read_out,
                ["embeddings", "mrna_table", "probe_embeddings", "probe_table", "helix_model", _PARAMETERS],
                ["probe", "probe_metrics", "probe_predictions"],
                name="fit_probe",
            ),
            node(
                read_out.pair,
                ["mrna_table", "designed_pairs", _PARAMETERS],
                ["sequence_pairs", "pair_exclusions"],
                name="pair_sequences",
            ),
            node(
                nodes.estimate,
                [*_SETTING, _PARAMETERS],
                "effects_atp",
                name="estimate_effects",
            ),
            node(
                nodes.measure,
                [*_SETTING, "effects_atp", _PARAMETERS],
                "effects_exact",
                name="measure_effects",
            ),
            node(
                nodes.check_estimators,
                [*_SETTING, "effects_atp", _PARAMETERS],
                ["estimator_agreement", "effects_ig"],
                name="check_estimators",
            ),
            node(
                nodes.summarise,
                ["helix_model", "effects_exact", "sequence_pairs", _PARAMETERS],
                [
                    "feature_effects",
                    "designed_effects",
                    "prediction_comparison",
                    "prediction_agreement",
                    "position_effects",
                ],
                name="summarise_effects",
            ),
            node(
                circuits.find_circuit,
                [*_SETTING, "effects_exact", _PARAMETERS],
                ["circuit", "circuit_steps"],
                name="find_circuit",
            ),
            node(
                circuits.connect,
                [*_SETTING, "circuit", "effects_exact", _PARAMETERS],
                ["circuit_edges", "circuit_graph"],
                name="connect_circuit",
            ),
            node(
                circuits.judge_circuit,
                [*_SETTING, "circuit", "effects_exact", _PARAMETERS],
                ["circuit_quality", "circuit_minimality"],
                name="judge_circuit",
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
                    "position_effects",
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
                    "position_effects_figure",
                ],
                name="draw_effects",
            ),
            node(
                circuits.draw_circuit,
                [
                    "circuit",
                    "circuit_edges",
                    "circuit_steps",
                    "circuit_quality",
                    "circuit_minimality",
                    _PARAMETERS,
                ],
                ["circuit_figure", "circuit_quality_figure"],
                name="draw_circuit",
            ),
        ]
    )
