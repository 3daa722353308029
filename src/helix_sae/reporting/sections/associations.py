"""Which features go along with which properties of the sequences, and whether it held up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.figures.heatmap import association_heatmap
from helix_sae.figures.layer_profile import layer_profile
from helix_sae.figures.qq import qq
from helix_sae.figures.style import property_label
from helix_sae.figures.volcano import volcano
from helix_sae.names import feature_name
from helix_sae.reporting import drawings
from helix_sae.reporting.document import (
    Block,
    Column,
    Prose,
    ReportTable,
    Section,
    Statement,
    Tile,
    is_empty,
    not_run,
    picture,
    truth,
)
from helix_sae.reporting.wording import (
    count,
    fixed,
    interval,
    listing,
    percent,
    probability,
    signed,
)

KEY, TITLE = "associations", "Associations with properties of the sequences"

N_TOP = 10
POOR_REPLICATION = 0.5
"""Share of replicated associations below which the report warns."""
TOO_MANY_FALSE = 0.08
"""Share of permutations with a discovery above which the tests are called miscalibrated, at a level of
0.05."""


class AssociationInputs(NamedTuple):
    """Tables of :func:`helix_sae.statistics.associate.associate` and what is made of them; None where it was not run.

    Attributes
    ----------
    associations, significant, masked, best_matches, validation, warnings, summary : DataFrame or None
        The fields of that function's result.
    hierarchy : DataFrame or None
        Of :func:`helix_sae.statistics.hierarchy.feature_hierarchy`.
    high_low : DataFrame or None
        Of :func:`helix_sae.statistics.high_low.high_low_validation`.
    calibration, quantiles : DataFrame or None
        One row for each kind of test (column ``test``), and the quantiles of the QQ figure.
    """

    associations: pd.DataFrame | None
    significant: pd.DataFrame | None
    best_matches: pd.DataFrame | None
    validation: pd.DataFrame | None
    summary: pd.DataFrame | None
    warnings: pd.DataFrame | None = None
    masked: pd.DataFrame | None = None
    hierarchy: pd.DataFrame | None = None
    high_low: pd.DataFrame | None = None
    calibration: pd.DataFrame | None = None
    quantiles: pd.DataFrame | None = None


def association_section(given: AssociationInputs, *, alpha: float = 0.05) -> Section:
    """What was found on the discovery clusters and what of it replicated on the validation clusters.

    Parameters
    ----------
    given : AssociationInputs
    alpha : float
        Level of the false discovery rate.
    """
    if given.associations is None or given.associations.empty or given.summary is None:
        return not_run(KEY, TITLE, "Associations were not tested.")
    totals = {name: int(given.summary[name].sum()) for name in given.summary if str(name).startswith("n_")}
    significant = given.significant if given.significant is not None else pd.DataFrame()
    top = top_replicated(significant)
    rate = _replication(given.validation)
    statements = [
        _tested(given.associations, totals, alpha),
        *_replicated(totals, rate, significant),
        *_strongest(top),
        *_partial(significant),
        *_masked(given.masked),
        *_high_low(given.high_low),
        *_calibrated(given.calibration),
    ]
    weak = rate is not None and rate[0] < POOR_REPLICATION
    warnings = _warnings(given.warnings)
    if weak and rate is not None:
        warnings.append(
            f"Only {percent(rate[0])} of the significant associations replicated on held-out families."
        )
    return Section(
        KEY,
        TITLE,
        statements,
        _blocks(given, top, alpha),
        {
            "alpha": alpha,
            **totals,
            "replication": dict(zip(("rate", "low", "high"), rate, strict=True)) if rate else None,
            "top_replicated": top[[c for c in _NUMBERS if c in top]] if len(top) else [],
            "calibration": [] if given.calibration is None else given.calibration,
        },
        [
            Tile(
                "Associations replicated",
                percent(rate[0]) if rate else "none",
                f"of {totals.get('n_significant', 0):,} significant" if rate else "none was significant",
                weak=weak or rate is None,
            )
        ],
        warnings,
    )


_NUMBERS = (
    "site",
    "feature",
    "property",
    "effect",
    "q_value",
    "partial_effect",
    "validation_n",
    "validation_effect",
    "validation_low",
    "validation_high",
    "validation_partial_effect",
    "partial_replicated",
)


def top_replicated(significant: pd.DataFrame, n: int = N_TOP) -> pd.DataFrame:
    """The strongest replicated association of every property by the validation estimate, the ``n`` largest of them."""
    if significant.empty:
        return significant
    held = significant[truth(significant["replicated"])]
    order = held["validation_effect"].abs().sort_values(ascending=False, kind="stable").index
    return held.loc[order].drop_duplicates("property").head(n).reset_index(drop=True)


def _replication(validation: pd.DataFrame | None) -> tuple[float, float, float] | None:
    """Share of significant associations that replicated, with its interval."""
    if validation is None or validation.empty:
        return None
    over_all = validation[(validation[["site", "category", "property"]] == "all").all(axis=1)]
    if over_all.empty or int(over_all["n_significant"].iloc[0]) == 0:
        return None
    row = over_all.iloc[0]
    low, high = (float(row.get(name, np.nan)) for name in ("rate_low", "rate_high"))
    return float(row["replication_rate"]), low, high


def _tested(associations: pd.DataFrame, totals: Mapping[str, int], alpha: float) -> Statement:
    n_properties = associations["property"].nunique()
    return Statement(
        f"{count(totals.get('n_tests', len(associations)), 'test')} of {totals.get('n_alive', 0):,} live"
        f" features against {count(int(n_properties), 'property', 'properties')} were one family for the"
        f" false discovery rate of {percent(alpha)}."
    )


def _replicated(
    totals: Mapping[str, int], rate: tuple[float, float, float] | None, significant: pd.DataFrame
) -> list[Statement]:
    n = totals.get("n_significant", len(significant))
    if rate is None or n == 0:
        return [Statement("No association was significant on the discovery families.", "weak", headline=True)]
    text = (
        f"{count(n, 'association was', 'associations were')} significant on the discovery families;"
        f" {percent(rate[0])} of them {interval(100 * rate[1], 100 * rate[2], 0)} replicated on held-out"
        " families."
    )
    return [Statement(text, "weak" if rate[0] < POOR_REPLICATION else "finding", headline=True)]


def _strongest(top: pd.DataFrame) -> list[Statement]:
    if top.empty:
        return []
    named = [
        f"{property_label(str(row['property']))} with {feature_name(str(row['site']), row['feature'])}"
        f" ({signed(float(row['validation_effect']))}"
        f" {interval(row['validation_low'], row['validation_high'])})"
        for row in top.head(3).to_dict("records")
    ]
    return [Statement(f"The strongest that replicated: {listing(named)}.", headline=True)]


def _partial(significant: pd.DataFrame) -> list[Statement]:
    """What is left when composition, length and source are held fixed."""
    if significant.empty or "partial_significant" not in significant:
        return []
    tested = significant[significant["partial_effect"].notna()]
    if tested.empty:
        return []
    kept = int(
        (
            truth(tested["partial_significant"])
            & (np.sign(tested["partial_effect"]) == np.sign(tested["effect"]))
        ).sum()
    )
    share = kept / len(tested)
    text = (
        f"With GC content, length and source held fixed, {kept:,} of the {len(tested):,} significant"
        f" associations that can be adjusted ({percent(share)}) remain significant with the same sign."
    )
    return [Statement(text, "weak" if share < POOR_REPLICATION else "finding")]


def _masked(masked: pd.DataFrame | None) -> list[Statement]:
    """What shows only when the confounders are held fixed."""
    if masked is None or masked.empty:
        return []
    kept = int(truth(masked["partial_replicated"]).sum())
    return [
        Statement(
            f"{count(len(masked), 'further association shows', 'further associations show')} only with these"
            f" held fixed; {kept:,} of them ({percent(kept / len(masked))}) replicated on held-out families."
        )
    ]


def _high_low(table: pd.DataFrame | None) -> list[Statement]:
    if table is None or table.empty or "agrees" not in table:
        return []
    known = table[table["hedges_g"].notna()] if "hedges_g" in table else table
    if known.empty:
        return []
    agrees = int(truth(known["agrees"]).sum())
    return [
        Statement(
            "Held-out sequences on which a top feature is high differ from those on which it is low in the"
            f" expected direction, with an interval that excludes zero, in {agrees} of {len(known)}"
            " comparisons.",
            "finding" if agrees >= POOR_REPLICATION * len(known) else "weak",
        )
    ]


def _calibrated(calibration: pd.DataFrame | None) -> list[Statement]:
    if calibration is None or calibration.empty:
        return [Statement("The calibration of the tests under permuted labels was not examined.", "absent")]
    statements: list[Statement] = []
    for row in calibration.to_dict("records"):
        share, error = float(row["share_with_discovery"]), float(row["standard_error"])
        bad = share - 1.96 * error > TOO_MANY_FALSE
        statements.append(
            Statement(
                f"With permuted labels ({int(row['n_permutations'])} times), {percent(share)} of the runs of"
                f" the {row.get('test', 'raw')} tests made any discovery (inflation factor"
                f" {fixed(float(row['inflation_factor']))}): "
                + ("more than the level allows." if bad else "the false discovery rate holds."),
                "weak" if bad else "finding",
            )
        )
    return statements


def _warnings(warnings: pd.DataFrame | None) -> list[str]:
    if warnings is None or warnings.empty:
        return []
    shown: list[str] = []
    for kind, rows in warnings.groupby("warning", sort=False):
        names = [property_label(str(p)) for p in rows["property"]]
        listed = listing(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
        detail = str(rows["detail"].iloc[0])
        shown.append(f"Not tested as asked ({str(kind).replace('_', ' ')}): {listed} – {detail}.")
    return shown


def _blocks(given: AssociationInputs, top: pd.DataFrame, alpha: float) -> list[Block]:
    blocks: list[Block] = []
    if len(top):
        blocks += [
            Prose(
                "The table gives the best replicated feature of each property. The estimate is that of the"
                " held-out families, which had no part in choosing it; the interval resamples families."
                " Partial: with GC content, length and source held fixed, where they do not define the"
                " property."
            ),
            _top_table(top),
        ]
    assert given.associations is not None
    blocks.append(
        picture(
            "figure-volcano",
            "Every association tested",
            "Effect against significance on the discovery families; coloured where the false discovery rate"
            " is kept.",
            volcano(given.associations, alpha=alpha),
        )
    )
    if given.best_matches is not None and len(given.best_matches):
        blocks.append(
            picture(
                "figure-heatmap",
                "The strongest features and all properties",
                "Rank correlation or rank-biserial effect on the discovery families; dotted cells are not"
                " significant.",
                association_heatmap(given.associations, given.best_matches, alpha=alpha),
            )
        )
    if given.hierarchy is not None and len(given.hierarchy):
        blocks.append(
            picture(
                "figure-layers",
                "Biology by depth",
                "Share of live features by the category of their best replicated match, block by block.",
                layer_profile(given.hierarchy),
            )
        )
    if not is_empty(given.quantiles) and not is_empty(given.calibration):
        quantiles: Any = given.quantiles
        summaries: Any = given.calibration
        blocks.append(
            picture(
                "figure-qq",
                "Calibration",
                "Observed p-values, and those under permuted labels, against their expectation.",
                qq(
                    {str(k): part for k, part in quantiles.groupby("test", sort=False)},
                    {str(k): part for k, part in summaries.groupby("test", sort=False)},
                ),
            )
        )
    return blocks


def _top_table(top: pd.DataFrame) -> ReportTable:
    drawn = drawings.whiskers(
        top["validation_effect"].tolist(), top["validation_low"].tolist(), top["validation_high"].tolist()
    )
    rows = [
        [
            property_label(str(row["property"])),
            feature_name(str(row["site"]), row["feature"]),
            whisker,
            signed(row["validation_effect"]),
            interval(row["validation_low"], row["validation_high"]),
            signed(row["effect"]),
            probability(row["q_value"]),
            signed(row["validation_partial_effect"]),
        ]
        for row, whisker in zip(top.to_dict("records"), drawn, strict=True)
    ]
    return ReportTable(
        "The best replicated association of each property.",
        [
            Column("Property"),
            Column("Feature", "code"),
            Column("Held-out effect", "whisker"),
            Column("", "number"),
            Column("95 % interval", "number"),
            Column("Discovery", "number"),
            Column("q", "number"),
            Column("Partial", "number"),
        ],
        rows,
    )
