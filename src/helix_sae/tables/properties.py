"""Tables of what features stand for: properties of sequences, and concepts at nucleotides."""

from __future__ import annotations

from helix_sae.tables.columns import SITE, correlation, count, p_value, share, text
from helix_sae.tables.schema import Column, Table

FEATURE = count("Number of the feature in the autoencoder of its site.")

PROPERTY_TABLES = {
    "significant_associations": Table(
        meaning="A feature whose mean activation goes along with a property, on the discovery part.",
        columns={
            "site": SITE,
            "feature": FEATURE,
            "property": text("Name of the property, a column of the mRNA table."),
            "category": text("Functional, structural or regulatory."),
            "n": count("Sequences tested.", "sequences"),
            "effect": correlation(
                "Size of the association: a rank correlation, or what stands for it with classes."
            ),
            "p_value": p_value("Of the test on sequences."),
            "q_value": p_value("False discovery rate at which the association would be called."),
            "replicated": Column(
                kind="flag", meaning="Whether it came again on the validation part.", nullable=True
            ),
        },
    ),
    "concept_matches": Table(
        meaning="One of the leading features of a concept at one site.",
        columns={
            "site": SITE,
            "feature": FEATURE,
            "concept": text("Name of the concept."),
            "threshold": share("Activation above which the feature speaks, as a share of its scale."),
            "rank_for_concept": count("Place among the features of the site for this concept."),
            "discovery_f1": share("F1 on the discovery part, where the threshold was chosen."),
            "precision": share("Share of what fired that is the concept, on the validation part."),
            "recall": share("Share of the concept at which it fired, on the validation part."),
            "f1": share("Harmonic mean of the two."),
            "base_rate": share("Share of nucleotides that are the concept."),
            "p_value": p_value("By circular shifts of the labels."),
        },
    ),
    "concept_baselines": Table(
        meaning="The best detector of one kind for one concept.",
        columns={
            "concept": text("Name of the concept."),
            "kind": text("Kind of detector: features, neurons, components, or what is read off the input."),
            "site": text("Place in the model, or tokens for what is read off the input."),
            "f1": share("F1 on the validation part."),
            "average_precision": share("Area under precision against recall."),
            "p_value": p_value("By circular shifts of the labels."),
            "passes": Column(
                kind="flag", meaning="Whether it beats every reader of the input.", nullable=True
            ),
        },
    ),
}
