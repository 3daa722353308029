"""Wiring of the reporting pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline, node

from helix_sae.left_out import TOLERANT
from helix_sae.pipelines.reporting import nodes

_PARAMETERS = "params:reporting"
_TARGET = "params:causal_acdc.target"
_SECTIONS = [
    "data_section",
    "autoencoder_section",
    "association_section",
    "concept_section",
    "prediction_section",
    "effect_section",
    "cause_section",
    "comparison_section",
    "circuit_section",
]


def create_pipeline(**_: object) -> Pipeline:
    """The results of all other pipelines to the run report, its summary and the feature atlas."""
    return Pipeline([*_sections(), *_pages()], tags=TOLERANT)


def _sections() -> list[Node]:
    """One node a section of the report."""
    return [
        node(
            nodes.describe_data,
            ["mrna_table", "rejected_records", "model", "activations"],
            "data_section",
            name="describe_data",
        ),
        node(
            nodes.describe_autoencoders,
            [
                "sae_metrics",
                "training_history",
                "sequence_codes",
                "params:sae_training.chosen",
                "sae_downstream",
                "sparse_probing",
                "sae_stability_summary",
                "sae_stability",
                "sae_subspaces",
            ],
            "autoencoder_section",
            name="describe_autoencoders",
        ),
        node(
            nodes.describe_associations,
            {
                "alpha": "params:correlation.alpha",
                "associations": "associations",
                "significant": "significant_associations",
                "masked": "masked_associations",
                "best_matches": "best_matches",
                "validation": "validation",
                "summary": "association_summary",
                "warnings": "association_warnings",
                "hierarchy": "feature_hierarchy",
                "high_low": "high_low_validation",
                "calibration": "calibration",
                "quantiles": "calibration_quantiles",
            },
            "association_section",
            name="describe_associations",
        ),
        node(
            nodes.describe_concepts,
            ["concept_matches", "concept_baselines", "concept_warnings", "metagene_profiles"],
            "concept_section",
            name="describe_concepts",
        ),
        node(
            nodes.describe_prediction,
            [
                "probe_metrics",
                "sequence_pairs",
                "pair_exclusions",
                "prediction_agreement",
                "prediction_comparison",
            ],
            "prediction_section",
            name="describe_prediction",
        ),
        node(
            nodes.describe_effects,
            [
                "feature_effects",
                "estimator_agreement",
                "designed_effects",
                "position_effects",
                _TARGET,
                "params:causal_acdc.effects.q",
            ],
            "effect_section",
            name="describe_effects",
        ),
        node(
            nodes.describe_comparisons,
            ["intervention_curves", "baseline_comparison", "block_ceilings", "block_comparison"],
            "comparison_section",
            name="describe_comparisons",
        ),
        node(
            nodes.describe_causes,
            ["cause_matrix", "cause_summary", "params:causal_acdc.causes.q"],
            "cause_section",
            name="describe_causes",
        ),
        node(
            nodes.describe_circuit,
            ["circuit", "circuit_steps", "circuit_quality", "circuit_minimality"],
            "circuit_section",
            name="describe_circuit",
        ),
    ]


def _pages() -> list[Node]:
    """Report and atlas."""
    return [
        node(
            nodes.assemble,
            [_PARAMETERS, "features", *_SECTIONS],
            ["run_report", "run_summary", "run_summary_text"],
            name="assemble_report",
        ),
        node(
            nodes.choose,
            ["feature_effects", "significant_associations", _PARAMETERS],
            "atlas_features",
            name="choose_features",
        ),
        node(
            nodes.gather_features,
            [
                "sequence_codes",
                "significant_associations",
                "concept_matches",
                "feature_effects",
                "circuit",
                "cause_matrix",
            ],
            ["features", "feature_codes"],
            name="gather_features",
        ),
        node(
            nodes.draw_atlas,
            [
                "atlas_features",
                "sparse_codes",
                "sequence_codes",
                "activations",
                "mrna_table",
                "significant_associations",
                "concept_matches",
                "concept_baselines",
                "feature_effects",
                "circuit",
                "cause_matrix",
                "baseline_comparison",
                "features",
                "feature_labels",
                "model",
                _TARGET,
                _PARAMETERS,
            ],
            "feature_atlas",
            name="draw_atlas",
        ),
    ]
