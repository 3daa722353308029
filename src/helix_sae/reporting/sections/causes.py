"""Which feature carries which cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helix_sae.figures.causal_causes import cause_heatmap
from helix_sae.names import feature_name
from helix_sae.reporting.document import (
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
from helix_sae.reporting.wording import MISSING, count, interval, listing, number, percent, setting, words

KEY, TITLE = "causes", "Which feature carries which cause"


def cause_section(matrix: pd.DataFrame | None, summary: pd.DataFrame | None, *, q: float = 0.05) -> Section:
    """The cause matrix in words, as a figure and by cause.

    Parameters
    ----------
    matrix : DataFrame or None
        Of :func:`helix_sae.causal.causes.cause_matrix`.
    summary : DataFrame or None
        Of :func:`helix_sae.causal.causes.cause_summary`.
    q : float
        False discovery rate over all features and causes together.
    """
    if matrix is None or summary is None or is_empty(matrix) or is_empty(summary):
        return not_run(KEY, TITLE, "Features were not tested for single causes.")
    confirmed = matrix[truth(matrix["confirmed"])]
    is_decoy = (summary["role"] == "decoy").to_numpy()
    causes, decoys = summary[~is_decoy], summary[is_decoy]
    carried = causes[causes["n_confirmed"] > 0]
    features = matrix[["site", "feature"]].drop_duplicates()
    carrying = confirmed.groupby(["site", "feature"])["kind"].nunique()
    statements = [
        Statement(
            f"Of {count(len(features), 'feature')} chosen on discovery families and tested for "
            f"{count(len(summary), 'kind')} of edit on validation families, {len(carrying)} move the "
            f"prediction for some kind and {int((carrying == 1).sum())} for one kind alone (q ≤ "
            f"{setting(q)} over all {len(matrix)} tests).",
            "finding" if len(carrying) else "weak",
            headline=True,
        ),
        *_carried(causes, carried),
        *certified_in_words(summary),
        *_decoys(decoys, confirmed),
        _power(summary),
    ]
    return Section(
        KEY,
        TITLE,
        statements,
        [
            Prose(
                "One feature at a time is given the value it has in the edited sequence, and the model is "
                "run on; from its effect that of the sham, the same kind of substitution nearby that "
                "changes nothing, is taken. Features were chosen by their exact effects on discovery pairs. "
                "A feature that matters only together with others has no effect alone and is not found "
                "here; circuits and curves find it."
            ),
            picture(
                "figure-causes",
                "Which feature carries which cause",
                "Mean effect on validation families, edit less sham, by feature and kind of edit. Rings: "
                "confirmed.",
                cause_heatmap(matrix),
            ),
            _table(summary, confirmed),
        ],
        {"q": q, "n_features": len(features), "causes": summary, "confirmed": confirmed},
        [
            Tile(
                "Causes with a feature",
                f"{len(carried)} of {len(causes)}",
                f"kinds of edit, q ≤ {setting(q)}",
                weak=len(carried) < len(causes),
            ),
            *_certified_tile(causes),
        ],
    )


def _carried(causes: pd.DataFrame, carried: pd.DataFrame) -> list[Statement]:
    """Which causes have a feature, how much these bring about, and which have none."""
    statements: list[Statement] = []
    if len(carried):
        named = [
            f"{words(row['kind'])} ({int(row['n_confirmed'])}, together {percent(row['recovered'])} of its "
            "effect)"
            for row in carried.sort_values("recovered", ascending=False).to_dict("records")
        ]
        statements.append(Statement(f"Features are confirmed for {listing(named)}.", headline=True))
    left = [words(kind) for kind in causes.loc[causes["n_confirmed"] == 0, "kind"]]
    if left:
        statements.append(Statement(f"No single feature is confirmed for {listing(left)}.", "weak"))
    return statements


def certified_in_words(summary: pd.DataFrame) -> list[Statement]:
    """Whether every true cause has a certified feature, and how much of each the certified ones bring about together.

    Parameters
    ----------
    summary : DataFrame
        Of :func:`helix_sae.causal.causes.cause_summary`.
    """
    causes = summary[summary["role"] != "decoy"]
    if not _is_certified_known(causes):
        return [Statement("Which of these features come back in other seeds is not known.", "absent")]
    has = (causes["n_certified"] > 0).to_numpy(dtype=bool)
    if has.all():
        first = f"Every one of the {len(causes)} true causes has a feature that is certified."
    else:
        without = causes[~has]
        missing = [f"{words(r['kind'])} ({_why_none(r)})" for r in without.to_dict("records")]
        first = (
            f"{int(has.sum())} of {len(causes)} true causes have a certified feature; there is none for"
            f" {listing(missing)}."
        )
    shares = [
        f"{words(r['kind'])} {percent(r['recovered_by_certified'])} "
        f"{interval(100 * r['recovered_by_certified_low'], 100 * r['recovered_by_certified_high'], 0)}"
        for r in causes.sort_values("recovered_by_certified", ascending=False).to_dict("records")
    ]
    return [
        Statement(first, "finding" if has.all() else "weak", headline=True),
        Statement(
            f"All certified features together bring about, of each predicted difference: {listing(shares)}."
        ),
    ]


def _why_none(row: Mapping[str, Any]) -> str:
    """Whether features without a certificate carry a cause, or what could have been seen."""
    if row["n_confirmed"] > 0:
        return f"only features that are not certified: {int(row['n_confirmed'])}"
    signs, seen = row["sign_agreement"], percent(row["detectable_share"])
    sight = (
        f"{int(row['n_clusters'])} families show an effect from {seen} of the predicted difference on with a"
        " chance of 80 %"
    )
    # Edits of sequences of one's own have no known sign to be right about.
    if pd.isna(signs):
        return sight
    return f"the model itself has the sign right in {percent(signs)} of these edits, and {sight}"


def _is_certified_known(causes: pd.DataFrame) -> bool:
    return len(causes) > 0 and "n_certified" in causes and not causes["n_certified"].isna().any()


def _certified_tile(causes: pd.DataFrame) -> list[Tile]:
    if not _is_certified_known(causes):
        return []
    n = int((causes["n_certified"] > 0).sum())
    return [
        Tile(
            "Causes with a certified feature",
            f"{n} of {len(causes)}",
            "it comes back in other seeds",
            weak=n < len(causes),
        )
    ]


def _decoys(decoys: pd.DataFrame, confirmed: pd.DataFrame) -> list[Statement]:
    if decoys.empty:
        return [Statement("No decoy was among the edits.", "absent")]
    passed = decoys[decoys["n_confirmed"] > 0]
    if passed.empty:
        return [
            Statement(
                f"No feature is confirmed for a decoy ({listing([words(kind) for kind in decoys['kind']])})."
            )
        ]
    largest = confirmed[confirmed["kind"].isin(passed["kind"])]["effect"].abs().max()
    named = [f"{words(r['kind'])} ({int(r['n_confirmed'])})" for r in passed.to_dict("records")]
    return [
        Statement(
            f"Features are also confirmed for decoys, which cause nothing: {listing(named)}, by at most "
            f"{number(largest)}. There the model itself answers to what only goes along with the phenotype.",
            "weak",
        )
    ]


def _power(summary: pd.DataFrame) -> Statement:
    known = summary[summary["role"] != "decoy"]
    worst, best = known["detectable_share"].max(), known["detectable_share"].min()
    return Statement(
        f"With {int(summary['n_clusters'].min())} to {int(summary['n_clusters'].max())} families a kind, an "
        f"effect of {percent(best)} to {percent(worst)} of the predicted difference, by kind, is seen with "
        "a chance of 80 %."
    )


def _table(summary: pd.DataFrame, confirmed: pd.DataFrame) -> ReportTable:
    rows: list[list[str]] = []
    for row in summary.to_dict("records"):
        own = confirmed[confirmed["kind"] == row["kind"]].sort_values("effect", key=abs, ascending=False)
        names = [feature_name(str(r["site"]), r["feature"]) for r in own.head(3).to_dict("records")]
        more = f" and {len(own) - 3} more" if len(own) > 3 else ""
        rows.append(
            [
                words(row["kind"]) + (" (decoy)" if row["role"] == "decoy" else ""),
                f"{int(row['n_pairs'])} / {int(row['n_clusters'])}",
                number(row["known"]),
                number(row["predicted"]),
                percent(row["sign_agreement"]),
                (", ".join(names) + more) or MISSING,
                _share(row, "recovered"),
                _share(row, "recovered_by_certified"),
                number(row["detectable"]),
            ]
        )
    return ReportTable(
        "By cause. The expected difference is what the simulator's mechanism gives for the edit, or the "
        "measured one of variants; recovered is the share of the predicted difference that the confirmed "
        "features, and all certified ones, bring about together, with its 95 % interval.",
        [
            Column("Edit"),
            Column("Pairs / families", "number"),
            Column("Expected or measured", "number"),
            Column("Predicted", "number"),
            Column("Same sign", "number"),
            Column("Features", "code"),
            Column("Recovered", "number"),
            Column("By certified", "number"),
            Column("Smallest effect seen", "number"),
        ],
        rows,
    )


def _share(row: Mapping[str, Any], name: str) -> str:
    share = row.get(name)
    if share is None or pd.isna(share):
        return MISSING
    return f"{percent(share)} {interval(100 * row[f'{name}_low'], 100 * row[f'{name}_high'], 0)}"
