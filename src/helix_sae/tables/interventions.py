"""Tables of interventions: the read-out, and what patching does to it."""

from __future__ import annotations

from helix_sae.tables.columns import SITE, correlation, count, number, p_value, share, text
from helix_sae.tables.schema import Column, Table

INTERVENTION_TABLES = {
    "prediction_agreement": Table(
        meaning="How predicted and known differences of pairs agree, in one part.",
        columns={
            "split": text("Discovery or validation."),
            "n_pairs": count("Pairs.", "pairs"),
            "n_clusters": count("Clusters of families that the pairs are of."),
            "spearman": correlation("Rank correlation of predicted and known differences."),
            "low": correlation("Lower end of its 95 % interval, clusters resampled."),
            "high": correlation("Upper end of the interval."),
            "sign_agreement": share("Share of pairs predicted in the known direction."),
        },
    ),
    "feature_effects": Table(
        meaning="What patching one feature does to the read-out, over pairs.",
        columns={
            "site": SITE,
            "discovery_n_pairs": count("Pairs of the discovery part.", "pairs"),
            "discovery_effect": number("Mean change of the read-out on the discovery part.", "read-out"),
            "discovery_low": number("Lower end of its interval.", "read-out"),
            "discovery_high": number("Upper end of its interval.", "read-out"),
            "discovery_p_value": p_value("Of the mean effect on the discovery part."),
            "estimator": text("How the effect was found: exact, or an estimate of it."),
            "selected": Column(
                kind="flag", meaning="Whether it went on to the validation part.", nullable=True
            ),
            "confirmed": Column(kind="flag", meaning="Whether it held there.", nullable=True),
        },
    ),
}
