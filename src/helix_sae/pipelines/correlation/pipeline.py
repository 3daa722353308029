"""Wiring of the correlation pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from helix_sae.pipelines.correlation import concepts, nodes
from helix_sae.pipelines.parts import part_node

_PARAMETERS = "params:correlation"


def create_pipeline(**_: object) -> Pipeline:
    """Codes to associations, concept matches and their figures."""
    return Pipeline(
        [
            part_node(
                nodes.associate_features,
                ["sequence_codes", "mrna_table", _PARAMETERS],
                [
                    "associations",
                    "significant_associations",
                    "masked_associations",
                    "best_matches",
                    "validation",
                    "associations_by_source",
                    "association_warnings",
                    "association_summary",
                ],
                name="associate_features",
                part="associations with properties of the sequences",
            ),
            part_node(
                nodes.calibrate_associations,
                ["sequence_codes", "mrna_table", _PARAMETERS],
                ["calibration", "calibration_quantiles"],
                name="calibrate_associations",
                part="calibration of the associations",
            ),
            part_node(
                nodes.rank_hierarchy,
                ["significant_associations", "best_matches", "association_summary"],
                "feature_hierarchy",
                name="rank_hierarchy",
                part="the hierarchy of features",
            ),
            part_node(
                nodes.validate_top,
                ["sequence_codes", "mrna_table", "best_matches", _PARAMETERS],
                "high_low_validation",
                name="validate_top_features",
                part="validation of the top features",
            ),
            part_node(
                concepts.match_features,
                [
                    "sparse_codes",
                    "activations",
                    "nucleotide_annotations",
                    "mrna_table",
                    "model",
                    _PARAMETERS,
                    "params:sae_training",
                    "sequence_codes",
                    "params:extraction",
                ],
                ["concept_matches", "concept_baselines", "concept_warnings"],
                name="match_concepts",
                part="matches with concepts",
            ),
            part_node(
                nodes.profile_landmarks,
                ["sparse_codes", "mrna_table", "concept_matches"],
                ["metagene_profiles", "metagene_periodicity"],
                name="profile_landmarks",
                part="profiles around landmarks",
            ),
            part_node(
                nodes.draw,
                [
                    "associations",
                    "best_matches",
                    "feature_hierarchy",
                    "calibration",
                    "calibration_quantiles",
                    _PARAMETERS,
                ],
                [
                    "volcano_figure",
                    "volcano_plotly",
                    "heatmap_figure",
                    "heatmap_plotly",
                    "layer_profile_figure",
                    "layer_profile_plotly",
                    "qq_figure",
                    "qq_plotly",
                ],
                name="draw_associations",
                part="figures of the associations",
            ),
            part_node(
                nodes.draw_profiles,
                ["metagene_profiles", "metagene_periodicity"],
                ["metagene_figure", "metagene_plotly"],
                name="draw_metagene",
                part="figures of the profiles",
            ),
        ]
    )
