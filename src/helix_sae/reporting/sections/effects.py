"""What single features do to the prediction when the model is run on without, or with, them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.figures.causal_effects import designed_effects, feature_effects, position_effects
from helix_sae.figures.style import difference_words, property_label, site_label
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
    not_run,
    picture,
    truth,
)
from helix_sae.reporting.wording import (
    count,
    decimals_for,
    fixed,
    interval,
    listing,
    number,
    p_value,
    percent,
    probability,
    setting,
    signed,
)

KEY, TITLE = "effects", "Causal effects of single features"

N_TOP = 12
SHAM_LEVEL = 1e-3
"""Level at which designed edits have to be felt more than their shams."""
POOR_AGREEMENT = 0.8
"""Rank correlation with exact effects below which an estimate is called unreliable."""


class EffectInputs(NamedTuple):
    """Tables of the interventions; None or empty where they were not run.

    Attributes
    ----------
    effects : DataFrame or None
        Selection on discovery, test on held-out pairs:
        ``site, feature, estimator, direction, positions, selected, confirmed, q_value`` and
        ``discovery_*``, ``validation_*`` of ``oriented, low, high, n_pairs, n_clusters``.
    agreement : DataFrame or None
        ``site, estimator, against, spearman, top_overlap, sign_agreement, n_nodes, screened``.
    designed : DataFrame or None
        One row a designed pair: ``kind, role`` (effect, sham or decoy),
        ``total_effect, predicted_difference``.
    designed_test : DataFrame or None
        ``split, kind, n, n_sham, median, median_sham, p_value, auc, sign_agreement, sign_low, sign_high``.
    positions : DataFrame or None
        Strata of the edit's position:
        ``following_low, following_high, n_pairs, predicted, known, feature_effect``.
    """

    effects: pd.DataFrame | None
    agreement: pd.DataFrame | None = None
    designed: pd.DataFrame | None = None
    designed_test: pd.DataFrame | None = None
    positions: pd.DataFrame | None = None


def effect_section(given: EffectInputs, *, target: str, q: float = 0.05) -> Section:
    """Which features the prediction depends on, and whether the method can be trusted.

    Parameters
    ----------
    given : EffectInputs
    target : str
        Column of the property that is read out.
    q : float
        False discovery rate of the test on held-out families.
    """
    if given.effects is None or given.effects.empty:
        return not_run(KEY, TITLE, "No feature was intervened on.")
    tested = given.effects[truth(given.effects["selected"])]
    confirmed = tested[truth(tested["confirmed"])]
    top = _largest(confirmed if len(confirmed) else tested, N_TOP)
    statements = [
        _tested(given.effects, tested, confirmed, q),
        *_strongest(top, len(confirmed) > 0, target),
        *_errors(given.effects),
        *_designed(given.designed_test, given.designed),
        *_agreement(given.agreement),
    ]
    return Section(
        KEY,
        TITLE,
        statements,
        _blocks(given, tested, target),
        {
            "target": target,
            "q": q,
            "n_tested": len(tested),
            "n_confirmed": len(confirmed),
            "top": top[[c for c in _NUMBERS if c in top]],
            "designed": [] if given.designed_test is None else given.designed_test,
            "agreement_with_exact": [] if given.agreement is None else given.agreement,
            "by_position": [] if given.positions is None else given.positions,
        },
        [
            Tile(
                "Causal features",
                f"{len(confirmed)} of {len(tested)}",
                f"confirmed on held-out families, q ≤ {setting(q)}",
                weak=len(confirmed) == 0,
            )
        ],
        _warnings(given, confirmed),
    )


_NUMBERS = (
    "site",
    "feature",
    "estimator",
    "direction",
    "positions",
    "discovery_oriented",
    "validation_oriented",
    "validation_low",
    "validation_high",
    "validation_n_pairs",
    "validation_n_clusters",
    "p_value",
    "q_value",
    "confirmed",
)


def _largest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    order = table["validation_oriented"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].head(n).reset_index(drop=True)


def _tested(effects: pd.DataFrame, tested: pd.DataFrame, confirmed: pd.DataFrame, q: float) -> Statement:
    estimator = str(effects["estimator"].iloc[0])
    how = (
        "running the model on from the patched site" if estimator == "exact" else f"the estimate {estimator}"
    )
    text = (
        f"Of {count(len(effects), 'feature or error node', 'features and error nodes')} that differ within"
        f" pairs, measured by {how}, the {len(tested)} of largest effect on the discovery pairs were tested"
        " on held-out families: "
    )
    if confirmed.empty:
        return Statement(text + f"none was confirmed at q ≤ {setting(q)}.", "weak", headline=True)
    were = "was" if len(confirmed) == 1 else "were"
    return Statement(text + f"{len(confirmed)} {were} confirmed at q ≤ {setting(q)}.", headline=True)


def _strongest(top: pd.DataFrame, are_confirmed: bool, target: str) -> list[Statement]:
    if top.empty or not np.isfinite(top["validation_oriented"].to_numpy(dtype=float)).any():
        return []
    shown = top.head(3)
    decimals = decimals_for(shown["validation_oriented"].tolist())
    named = [
        f"{feature_name(str(row['site']), row['feature'])} ({signed(row['validation_oriented'], decimals)}"
        f" {interval(row['validation_low'], row['validation_high'], decimals)}, q ="
        f" {probability(row['q_value'])})"
        for row in shown.to_dict("records")
    ]
    kind = "The largest effects" if are_confirmed else "The largest effects, none of them confirmed,"
    return [
        Statement(
            f"{kind} on predicted {property_label(target)}, towards the difference of the pair:"
            f" {listing(named)}.",
            "finding" if are_confirmed else "weak",
            headline=True,
        )
    ]


def _errors(effects: pd.DataFrame) -> list[Statement]:
    """Whether what the autoencoders miss moves the prediction more than what they found."""
    is_error = effects["feature"].astype(str) == "error"
    size = effects["discovery_oriented"].abs()
    ahead = [
        str(site)
        for site, rows in effects.assign(_error=is_error, _size=size).groupby("site", sort=False)
        if rows.loc[rows["_error"], "_size"].max() > rows.loc[~rows["_error"], "_size"].max()
    ]
    if not ahead:
        return []
    return [
        Statement(
            f"At {listing([site_label(s) for s in ahead])} the reconstruction error, which no feature"
            " accounts for, moves the prediction more than any single feature does.",
            "weak",
        )
    ]


def _designed(test: pd.DataFrame | None, designed: pd.DataFrame | None) -> list[Statement]:
    if test is None or test.empty:
        return [Statement("There were no designed edits with shams to check the method on.", "absent")]
    whole = test[test["split"] == "all"]
    decoys = _decoy_kinds(designed)
    statements: list[Statement] = []
    upstream = whole[whole["kind"].astype(str).str.contains(" or ") & (whole["n_sham"] > 0)]
    for row in upstream.to_dict("records"):
        passed = float(row["p_value"]) < SHAM_LEVEL
        statements.append(
            Statement(
                (
                    f"Edits that make or break an upstream AUG ({int(row['n'])}) are felt more than their"
                    f" shams ({int(row['n_sham'])}): median total effect {number(row['median'])} against"
                    f" {number(row['median_sham'])}, one-sided Mann–Whitney {p_value(row['p_value'])}."
                    if passed
                    else (
                        f"Edits that make or break an upstream AUG ({int(row['n'])}) are not clearly felt"
                        f" more than their shams ({int(row['n_sham'])}): median total effect"
                        f" {number(row['median'])} against {number(row['median_sham'])}, one-sided"
                        f" Mann–Whitney {p_value(row['p_value'])}."
                    )
                ),
                "finding" if passed else "weak",
                headline=True,
            )
        )
        statements += _signs(test, difference_words(designed))
    statements += _other_kinds(whole, decoys, designed)
    return statements


def _signs(test: pd.DataFrame, kind: str) -> list[Statement]:
    held = test[(test["split"] == "validation") & test["kind"].astype(str).str.contains(" or ")]
    if held.empty or not np.isfinite(float(held["sign_agreement"].iloc[0])):
        return []
    row = held.iloc[0]
    rate = float(row["sign_agreement"])
    return [
        Statement(
            f"On held-out families the prediction moves in the direction of the {kind} difference in"
            f" {percent(rate)} of those edits"
            f" {interval(100 * float(row['sign_low']), 100 * float(row['sign_high']), 0)}.",
            "finding" if rate >= 0.8 else "weak",
        )
    ]


def _decoy_kinds(designed: pd.DataFrame | None) -> set[str]:
    if designed is None or designed.empty or "role" not in designed:
        return set()
    return {str(k) for k in designed.loc[designed["role"] == "decoy", "kind"].unique()}


def _other_kinds(whole: pd.DataFrame, decoys: set[str], designed: pd.DataFrame | None) -> list[Statement]:
    """Edits of the other kinds that pass, those that do not, and the decoys against all shams."""
    kinds = whole[~whole["kind"].astype(str).str.contains(" or ") & (whole["n_sham"] > 0)]
    kinds = kinds[~kinds["kind"].isin(decoys)]
    passed = [str(k).replace("_", " ") for k in kinds.loc[kinds["p_value"] < SHAM_LEVEL, "kind"]]
    failed = [str(k).replace("_", " ") for k in kinds.loc[~(kinds["p_value"] < SHAM_LEVEL), "kind"]]
    statements: list[Statement] = []
    if passed or failed:
        text = f"By kind of edit at p < {setting(SHAM_LEVEL)}: "
        text += f"felt more than shams: {listing(passed)}" if passed else "none is felt more than its shams"
        text += f"; not told apart from shams: {listing(failed)}." if failed else "."
        statements.append(Statement(text, "finding" if passed else "weak"))
    statements += _decoys(designed)
    return statements


def _decoys(designed: pd.DataFrame | None) -> list[Statement]:
    """Decoys, which correlate with the phenotype and do not cause it, against all shams."""
    found = decoy_test(designed)
    if found is None:
        return []
    passes = found["p_value"] < SHAM_LEVEL
    text = (
        f"Decoys ({found['n']}), edits of something that only correlates with the phenotype, have a median"
        f" total effect of {number(found['median'])} against {number(found['median_sham'])} of all shams"
        f" ({p_value(found['p_value'])}): "
    )
    text += "they pass as causes, which they are not." if passes else "they do not pass."
    return [Statement(text, "weak" if passes else "finding", headline=True)]


def decoy_test(designed: pd.DataFrame | None) -> dict[str, Any] | None:
    """One-sided Mann-Whitney test that decoys are felt more than shams; None without both.

    Parameters
    ----------
    designed : DataFrame or None
        ``role, total_effect``.
    """
    from scipy.stats import mannwhitneyu  # noqa: PLC0415 - only where there are decoys

    if designed is None or designed.empty or "role" not in designed:
        return None
    sizes = {role: part["total_effect"].to_numpy(dtype=float) for role, part in designed.groupby("role")}
    decoy, sham = sizes.get("decoy", np.zeros(0)), sizes.get("sham", np.zeros(0))
    if not len(decoy) or not len(sham):
        return None
    return {
        "n": len(decoy),
        "n_sham": len(sham),
        "median": float(np.median(decoy)),
        "median_sham": float(np.median(sham)),
        "p_value": float(mannwhitneyu(decoy, sham, alternative="greater").pvalue),
    }


def _agreement(agreement: pd.DataFrame | None) -> list[Statement]:
    if agreement is None or agreement.empty:
        return [Statement("Gradient estimates were not compared with exact interventions.", "absent")]
    names = {
        "atp": "Attribution patching (one gradient) ranks the nodes like exact interventions",
        "ig": "Integrated gradients rank the nodes like exact interventions",
        "exact, other direction": "Exact interventions from target to source and back rank the nodes alike",
    }
    statements: list[Statement] = []
    for estimator, rows in agreement.groupby("estimator", sort=False):
        known = rows[rows["spearman"].notna()]
        if known.empty:
            continue
        low, high = float(known["spearman"].min()), float(known["spearman"].max())
        poor = [site_label(str(s)) for s in known.loc[known["spearman"] < POOR_AGREEMENT, "site"]]
        span = fixed(low) if round(low, 2) == round(high, 2) else f"{fixed(low)} to {fixed(high)}"
        text = (
            f"{names.get(str(estimator), f'{estimator} ranks the nodes like exact interventions')}, with"
            f" Spearman's ρ = {span} over {count(len(known), 'site')};"
            f" {percent(float(known['sign_agreement'].mean()))} of the largest have the same sign."
        )
        if truth(known["screened"]).any():
            text += " This is within the screened set that was run exactly."
        if poor:
            text += f" It is not to be relied on at {listing(poor)}."
        statements.append(Statement(text, "weak" if poor else "finding"))
    return statements


def _warnings(given: EffectInputs, confirmed: pd.DataFrame) -> list[str]:
    warnings: list[str] = []
    if confirmed.empty:
        warnings.append(
            "No feature's effect was confirmed on held-out families; rankings of single features below are"
            " exploratory."
        )
    found = decoy_test(given.designed)
    if found is not None and found["p_value"] < SHAM_LEVEL:
        warnings.append("Decoys are felt more than shams: effects of this size can be had without a cause.")
    return warnings


def _blocks(given: EffectInputs, tested: pd.DataFrame, target: str) -> list[Block]:
    effects: Any = given.effects
    blocks: list[Block] = [
        Prose(
            "Giving one feature the value it has in the other sequence of the pair, leaving everything else"
            " and the reconstruction error in place, and running the model on: the effect is the change of"
            " the prediction, positive towards the difference of the pair (the predicted one where no other"
            " is known). Features were chosen on the discovery families; estimate, interval and test are"
            " those of the held-out ones. Intervals resample families, the test flips their signs."
        ),
        _top_table(_largest(tested, N_TOP)),
        picture(
            "figure-effects",
            f"Features that move predicted {property_label(target)}",
            "Held-out effect with its 95 % interval; filled where confirmed. The tick is the effect on the"
            " discovery pairs.",
            feature_effects(
                effects.assign(selected=truth(effects["selected"]), confirmed=truth(effects["confirmed"])),
                target=target,
            ),
        ),
    ]
    if given.designed_test is not None and len(given.designed_test):
        blocks.append(_designed_table(given.designed_test, difference_words(given.designed)))
    if given.designed is not None and len(given.designed) and (given.designed["role"] == "sham").any():
        blocks.append(
            picture(
                "figure-designed",
                "Designed edits beside their shams",
                "Each point is a pair. A sham makes the same kind of substitution nearby and changes no"
                " element.",
                designed_effects(given.designed, target=target),
            )
        )
    if given.agreement is not None and len(given.agreement):
        blocks.append(_agreement_table(given.agreement))
    if given.positions is not None and len(given.positions):
        blocks.append(_position_table(given.positions))
        if "feature_effect_low" in given.positions:
            blocks.append(
                picture(
                    "figure-positions",
                    "Effects by the position of the edit",
                    "Means over the pairs of each stratum; bars: 95 % bootstrap of families.",
                    position_effects(given.positions, target=target),
                )
            )
    return blocks


def _top_table(top: pd.DataFrame) -> ReportTable:
    drawn = drawings.whiskers(
        top["validation_oriented"].tolist(), top["validation_low"].tolist(), top["validation_high"].tolist()
    )
    decimals = decimals_for(top["validation_oriented"].tolist(), 3)
    rows = [
        [
            feature_name(str(row["site"]), row["feature"]),
            whisker,
            signed(row["validation_oriented"], decimals),
            interval(row["validation_low"], row["validation_high"], decimals),
            probability(row["q_value"]),
            bool(yes),
            signed(row["discovery_oriented"], decimals),
            f"{_whole(row['validation_n_pairs'])} / {_whole(row['validation_n_clusters'])}",
        ]
        for row, whisker, yes in zip(top.to_dict("records"), drawn, truth(top["confirmed"]), strict=True)
    ]
    return ReportTable(
        "The features tested, by the size of their held-out effect. Pairs / families: those in which the"
        " feature differs.",
        [
            Column("Feature", "code"),
            Column("Held-out effect", "whisker"),
            Column("", "number"),
            Column("95 % interval", "number"),
            Column("q", "number"),
            Column("Confirmed", "yes"),
            Column("Discovery", "number"),
            Column("Pairs / families", "number"),
        ],
        rows,
    )


def _whole(value: float) -> str:
    return "0" if pd.isna(value) else f"{int(value)}"


def _designed_table(test: pd.DataFrame, kind: str) -> ReportTable:
    whole = test[test["split"] == "all"]
    decimals = decimals_for([*whole["median"], *whole["median_sham"]], 3)
    rows = [
        [
            str(row["kind"]).replace("_", " "),
            number(int(row["n"])),
            number(int(row["n_sham"])),
            fixed(row["median"], decimals),
            fixed(row["median_sham"], decimals),
            fixed(row["auc"]),
            probability(row["p_value"]),
            percent(row["sign_agreement"]),
        ]
        for row in whole.to_dict("records")
    ]
    signs = "" if kind == "unknown" else f" Same sign: predicted and {kind} difference."
    return ReportTable(
        "Designed edits against their shams. Total effect: sum of the absolute effects of all features run."
        f" AUC: chance that an edit is felt more than a sham.{signs}",
        [
            Column("Edit"),
            Column("n", "number"),
            Column("Shams", "number"),
            Column("Total effect", "number"),
            Column("of shams", "number"),
            Column("AUC", "number"),
            Column("p", "number"),
            Column("Same sign", "number"),
        ],
        rows,
    )


def _agreement_table(agreement: pd.DataFrame) -> ReportTable:
    rows = [
        [
            str(row["site"]),
            str(row["estimator"]),
            str(row["against"]),
            fixed(row["spearman"]),
            percent(row["top_overlap"]),
            percent(row["sign_agreement"]),
            number(int(row["n_nodes"])),
        ]
        for row in agreement.to_dict("records")
    ]
    return ReportTable(
        "Estimates against exact interventions, over the mean effects of nodes. Overlap and sign: of the"
        " twenty largest.",
        [
            Column("Site", "code"),
            Column("Estimate"),
            Column("Against"),
            Column("Spearman", "number"),
            Column("Overlap", "number"),
            Column("Same sign", "number"),
            Column("Nodes", "number"),
        ],
        rows,
    )


def _position_table(positions: pd.DataFrame) -> ReportTable:
    rows = [
        [
            f"{percent(row['following_low'])} to {percent(row['following_high'])}"
            + (", with indels" if row.get("has_indel") else ""),
            number(int(row["n_pairs"])),
            number(row["predicted"]),
            number(row["known"]),
            number(row["feature_effect"])
            + (
                f" {interval(row['feature_effect_low'], row['feature_effect_high'])}"
                if "feature_effect_low" in row
                else ""
            ),
            fixed(row["spearman"]),
        ]
        for row in positions.to_dict("records")
    ]
    return ReportTable(
        "By the share of the sequence that follows the first edit. Nothing before it changes in a model that"
        " reads from left to right, so what follows limits what a pooled read-out can feel.",
        [
            Column("Following"),
            Column("Pairs", "number"),
            Column("Predicted difference", "number"),
            Column(f"{difference_words(positions).capitalize()} difference", "number"),
            Column("Largest feature effect", "number"),
            Column("Spearman", "number"),
        ],
        rows,
    )
