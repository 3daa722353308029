"""Wiring of the causal pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from helix_sae.pipelines.causal_acdc import causes, circuits, experiment, nodes, read_out
from helix_sae.pipelines.parts import part_node

_PARAMETERS = "params:causal_acdc"


def create_pipeline(**_: object) -> Pipeline:
    """A model, its autoencoders and the mRNA table to what the prediction depends on."""
    return Pipeline(
        [
            part_node(
                read_out.embed,
                ["mrna_table", "model", _PARAMETERS],
                "embeddings",
                name="embed_sequences",
                part="embeddings for the read-out",
            ),
            part_node(
                read_out.tabulate_further,
                ["probe_records", "mrna_table", "params:ingestion", _PARAMETERS],
                "probe_table",
                name="tabulate_probe_records",
                part="further records for the read-out",
            ),
            part_node(
                read_out.embed,
                ["probe_table", "model", _PARAMETERS],
                "probe_embeddings",
                name="embed_probe_records",
                part="embeddings of the further records",
            ),
            part_node(
                read_out.read_out,
                ["embeddings", "mrna_table", "probe_embeddings", "probe_table", "model", _PARAMETERS],
                ["probe", "probe_metrics", "probe_predictions"],
                name="fit_probe",
                part="the read-out",
            ),
            part_node(
                read_out.pair,
                ["mrna_table", "designed_pairs", _PARAMETERS],
                ["sequence_pairs", "pair_exclusions"],
                name="pair_sequences",
                part="pairs of sequences",
            ),
            part_node(
                experiment.set_up,
                ["model", "sae_checkpoints", "probe", "sequence_pairs", _PARAMETERS],
                "experiment",
                name="set_up_experiment",
                part="interventions",
            ),
            part_node(
                nodes.estimate,
                ["experiment"],
                "effects_atp",
                name="estimate_effects",
                part="estimated effects",
            ),
            part_node(
                nodes.measure,
                ["experiment", "effects_atp", _PARAMETERS],
                "effects_exact",
                name="measure_effects",
                part="exact effects",
            ),
            part_node(
                nodes.check_estimators,
                ["experiment", "sequence_pairs", "effects_atp", _PARAMETERS],
                ["estimator_agreement", "effects_ig"],
                name="check_estimators",
                part="estimates against exact effects",
            ),
            part_node(
                nodes.summarise,
                ["experiment", "effects_exact", "sequence_pairs", "sae_stability", _PARAMETERS],
                [
                    "feature_effects",
                    "designed_effects",
                    "prediction_comparison",
                    "prediction_agreement",
                    "position_effects",
                ],
                name="summarise_effects",
                part="effects of single features",
            ),
            part_node(
                nodes.learn_sets,
                ["experiment", "sequence_pairs", "effects_exact", _PARAMETERS],
                "learnt_masks",
                name="learn_masks",
                part="learnt masks",
            ),
            part_node(
                causes.find_causes,
                [
                    "experiment",
                    "model",
                    "mrna_table",
                    "sequence_pairs",
                    "effects_exact",
                    "sae_stability",
                    _PARAMETERS,
                ],
                ["cause_matrix", "cause_summary", "cause_contrasts"],
                name="find_causes",
                part="causes of the features",
            ),
            part_node(
                circuits.find_circuit,
                ["experiment", "sequence_pairs", "effects_exact", _PARAMETERS],
                ["circuit", "circuit_steps"],
                name="find_circuit",
                part="the circuit",
            ),
            part_node(
                circuits.connect,
                ["experiment", "sequence_pairs", "circuit", "effects_exact", _PARAMETERS],
                ["circuit_edges", "circuit_graph"],
                name="connect_circuit",
                part="edges of the circuit",
            ),
            part_node(
                circuits.judge_circuit,
                ["experiment", "sequence_pairs", "circuit", "learnt_masks", _PARAMETERS],
                ["circuit_quality", "circuit_minimality"],
                name="judge_circuit",
                part="quality of the circuit",
            ),
            part_node(
                nodes.compare,
                ["experiment", "sequence_pairs", "effects_atp", "learnt_masks", "activations", _PARAMETERS],
                [
                    "intervention_curves",
                    "baseline_comparison",
                    "block_ceilings",
                    "block_comparison",
                    "comparison_verdict",
                ],
                name="compare_with_baselines",
                part="comparison with the baselines",
            ),
            part_node(
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
                part="figures of the effects",
            ),
            part_node(
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
                part="figures of the circuit",
            ),
        ]
    )
