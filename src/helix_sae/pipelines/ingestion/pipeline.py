"""Wiring of the ingestion pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.ingestion import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Raw records to the mRNA table and its nucleotide annotations."""
    return Pipeline(
        [
            node(
                nodes.tabulate,
                [
                    "raw_sequences",
                    "params:ingestion",
                    "params:causal_acdc.target",
                    "params:correlation.properties",
                ],
                ["mrna_table", "rejected_records"],
                name="tabulate_records",
            ),
            node(
                nodes.annotate,
                ["mrna_table", "concept_intervals", "params:ingestion"],
                "nucleotide_annotations",
                name="annotate_nucleotides",
            ),
        ]
    )
