"""The read-out, the pairs, and how well differences are predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from helix_sae.figures.causal_effects import predicted_difference
from helix_sae.figures.style import difference_words, property_label
from helix_sae.reporting.document import (
    Block,
    Column,
    ReportTable,
    Section,
    Statement,
    Tile,
    is_empty,
    not_run,
    picture,
    truth,
)
from helix_sae.reporting.wording import count, fixed, interval, listing, number, percent

KEY, TITLE = "prediction", "The read-out and its pairs"

_METRICS = {"r2": "R²", "auc": "AUC"}
_CHANCE = {"r2": (0.0, "predicting the mean"), "auc": (0.5, "guessing")}
"""What a read-out scores that has learned nothing, and that in words."""
_KINDS = {
    "ridge": "A ridge regression on the pooled embedding",
    "logistic": "A logistic regression on the pooled embedding",
    "mlp": "A small neural network on the pooled embedding",
    "head": "The model's own phenotype head",
}


def prediction_section(
    probe_metrics: pd.DataFrame | None,
    pairs: pd.DataFrame | None,
    exclusions: pd.DataFrame | None,
    agreement: pd.DataFrame | None,
    comparison: pd.DataFrame | None = None,
) -> Section:
    """Strength of the probe, number of pairs, and the rank correlation of predicted and known differences.

    Parameters
    ----------
    probe_metrics : DataFrame or None
        One row:
        ``target, kind, metric, out_of_fold, validation, n_validation, n_clusters_validation, floor``, and
        ``n_further`` with ``out_of_fold_own`` when it was also fitted on further labelled sequences.
    pairs : DataFrame or None
        ``split, kind, is_sham, cluster, difference, difference_kind``.
    exclusions : DataFrame or None
        ``source_id, target_id, reason``.
    agreement : DataFrame or None
        ``split, has_indel, n_pairs, n_clusters, spearman, low, high, pearson, n_signed, sign_agreement``.
    comparison : DataFrame or None
        One row a pair: ``predicted_difference, difference, split, is_sham``.
    """
    if probe_metrics is None or probe_metrics.empty:
        return not_run(KEY, TITLE, "No read-out was fitted, so no intervention could be judged.")
    probe = {str(k): v for k, v in probe_metrics.iloc[0].items()}
    chance = _CHANCE.get(str(probe["metric"]), (-np.inf, ""))[0]
    needed = max(float(probe["floor"]) if "floor" in probe else -np.inf, np.nextafter(chance, np.inf))
    # Not `<`: a value that is not defined has not reached its floor either.
    weak_probe = not float(probe["validation"]) >= needed
    warnings: list[str] = []
    if weak_probe:
        warnings.append(
            f"The read-out {_shortfall(probe)}: the interventions below say what moves a prediction that is"
            " hardly right to begin with."
        )
    statements = [_probe(probe, weak_probe)]
    blocks: list[Block] = []
    held = _validation(agreement)
    if pairs is None or pairs.empty:
        statements.append(Statement("No pairs of sequences were formed.", "absent", headline=True))
    else:
        statements += [_pairs(pairs), *_excluded(exclusions)]
    if held is None:
        text = "Predicted and known differences were not compared."
        if difference_words(pairs) == "unknown":
            text = (
                "What the edits do to the property is not known, so that predicted differences are compared"
                " with nothing."
            )
        statements.append(Statement(text, "absent"))
    else:
        statement, warning = _agreement(held, str(probe["target"]), difference_words(pairs))
        statements.append(statement)
        warnings += warning
    if agreement is not None and not is_empty(agreement):
        blocks.append(_agreement_table(agreement, difference_words(pairs)))
    is_unknown = difference_words(pairs) == "unknown"
    if comparison is not None and not is_empty(comparison) and not is_unknown:
        blocks.append(
            picture(
                "figure-differences",
                f"Predicted and {difference_words(pairs)} differences",
                "Each point is a pair of sequences. On the dashed line the two agree.",
                predicted_difference(comparison, target=str(probe["target"]), agreement=agreement),
            )
        )
    metric = _METRICS.get(str(probe["metric"]), str(probe["metric"]))
    return Section(
        KEY,
        TITLE,
        statements,
        blocks,
        _numbers(probe, pairs, exclusions, agreement, weak_probe),
        [
            Tile(
                f"Read-out of {property_label(str(probe['target']))}",
                f"{metric} {fixed(float(probe['validation']))}",
                "held-out families",
                weak=weak_probe,
            ),
            *(
                [
                    Tile(
                        f"Predicted against {difference_words(pairs)}",
                        f"ρ {fixed(float(held['spearman']))}",
                        f"{interval(held['low'], held['high'])}, {int(held['n_pairs'])} held-out pairs",
                        weak=not float(held["low"]) > 0,
                    )
                ]
                if held is not None
                else []
            ),
        ],
        warnings,
    )


def _probe(probe: Mapping[str, Any], weak: bool) -> Statement:
    metric = _METRICS.get(str(probe["metric"]), str(probe["metric"]))
    text = (
        f"{_KINDS.get(str(probe['kind']), str(probe['kind']))} predicts"
        f" {property_label(str(probe['target']))} with {metric} = {fixed(float(probe['validation']), 3)} on"
        f" {count(int(probe['n_validation']), 'sequence')} of"
        f" {count(int(probe['n_clusters_validation']), 'held-out family', 'held-out families')}"
    )
    further = int(probe.get("n_further", 0))
    if probe["kind"] != "head":
        inside = float(probe["out_of_fold_own" if "out_of_fold_own" in probe else "out_of_fold"])
        text += f" ({fixed(inside, 3)} out of fold on those it was fitted on"
        text += f", {further:,} further labelled sequences not counted)" if further else ")"
    chance, words = _CHANCE.get(str(probe["metric"]), (-np.inf, ""))
    if float(probe["validation"]) <= chance:
        text += f", no better than {words}"
    if "floor" in probe:
        text += f"; the floor is {fixed(float(probe['floor']))}"
        text += "" if float(probe["validation"]) >= float(probe["floor"]) else ", which it does not reach"
    return Statement(text + ".", "weak" if weak else "finding", headline=True)


def _shortfall(probe: Mapping[str, Any]) -> str:
    """What a weak read-out does not do: reach its floor or, when somebody set that lower, do better than chance."""
    chance, words = _CHANCE.get(str(probe["metric"]), (-np.inf, ""))
    if float(probe["validation"]) <= chance:
        return f"is no better than {words}"
    return f"does not reach its floor ({fixed(probe['floor'])})" if "floor" in probe else "is not defined"


def _pairs(pairs: pd.DataFrame) -> Statement:
    sham = truth(pairs["is_sham"])
    kinds = pairs["kind"][~sham].astype(str).value_counts()
    parts = pairs["split"].astype(str).value_counts()
    text = (
        f"{count(len(pairs), 'pair')} of sequences from"
        f" {count(int(pairs['cluster'].nunique()), 'family', 'families')} ({int(parts.get('discovery', 0)):,}"
        f" for discovery, {int(parts.get('validation', 0)):,} held out)"
    )
    if sham.any():
        text += f", {int(sham.sum()):,} of them shams"
    if len(kinds) > 1:
        named = [f"{n:,} {kind}".replace("_", " ") for kind, n in kinds.items()]
        text += f"; kinds: {listing(named)}"
    return Statement(text + ".", headline=True)


def _excluded(exclusions: pd.DataFrame | None) -> list[Statement]:
    if exclusions is None or exclusions.empty:
        return [Statement("No candidate pair was left out.")]
    reasons = exclusions["reason"].value_counts()
    named = listing([f"{n:,} {reason}" for reason, n in reasons.items()])
    return [Statement(f"{count(len(exclusions), 'candidate')} left out: {named}.")]


def _validation(agreement: pd.DataFrame | None) -> dict[str, Any] | None:
    """The row of the held-out pairs without indels; with them if there are no others."""
    if agreement is None or agreement.empty:
        return None
    held = agreement[agreement["split"] == "validation"]
    if held.empty:
        return None
    ordered = held.assign(_indel=truth(held["has_indel"])).sort_values("_indel", kind="stable")
    return {str(k): v for k, v in ordered.iloc[0].items()}


def _agreement(held: Mapping[str, Any], target: str, kind: str) -> tuple[Statement, list[str]]:
    rho, low, high = (float(held[name]) for name in ("spearman", "low", "high"))
    label = property_label(target)
    if not np.isfinite(rho):
        text = f"Too few held-out pairs to correlate predicted with {kind} differences of {label}."
        return Statement(text, "weak", headline=True), [text]
    text = (
        f"Over {count(int(held['n_pairs']), 'held-out pair')} of"
        f" {count(int(held['n_clusters']), 'family', 'families')}, predicted and {kind} differences of"
        f" {label} correlate with Spearman's ρ = {fixed(rho)} {interval(low, high)}{_same_sign(held, kind)}."
    )
    if low > 0:
        return Statement(text, headline=True), []
    if high < 0:
        short, meaning = "lies below zero", "the read-out gets these differences the wrong way round."
    elif np.isfinite(low) and np.isfinite(high):
        short, meaning = "includes zero", "there is no evidence that the read-out tells these pairs apart."
    else:
        short, meaning = (
            "is not defined",
            "there are too few families to say whether the read-out tells pairs apart.",
        )
    warning = f"The interval of the correlation between predicted and {kind} differences {short}: {meaning}"
    return Statement(f"{text} The interval {short}.", "weak", headline=True), [warning]


def _same_sign(held: Mapping[str, Any], kind: str) -> str:
    """How often the signs agree, and of how many pairs that can be said."""
    n_pairs, n_signed = int(held["n_pairs"]), int(held["n_signed"])
    if not n_signed:
        return ""
    of = "" if n_signed == n_pairs else f" of the {n_signed} whose {kind} difference is not zero"
    return f"; they agree in sign in {percent(float(held['sign_agreement']))}{of}"


def _agreement_table(agreement: pd.DataFrame, kind: str) -> ReportTable:
    rows = [
        [
            {"validation": "held out"}.get(str(row["split"]), str(row["split"])),
            "with indels" if indel else "substitutions only",
            number(int(row["n_pairs"])),
            number(int(row["n_clusters"])),
            fixed(row["spearman"]),
            interval(row["low"], row["high"]),
            fixed(row["pearson"]),
            percent(row["sign_agreement"]),
        ]
        for row, indel in zip(agreement.to_dict("records"), truth(agreement["has_indel"]), strict=True)
    ]
    return ReportTable(
        f"Predicted against {kind} differences; shams left out, intervals resample families. Same sign: of"
        f" the pairs whose {kind} difference is not zero.",
        [
            Column("Pairs"),
            Column("Edits"),
            Column("n", "number"),
            Column("Families", "number"),
            Column("Spearman", "number"),
            Column("95 % interval", "number"),
            Column("Pearson", "number"),
            Column("Same sign", "number"),
        ],
        rows,
    )


def _numbers(
    probe: Mapping[str, Any],
    pairs: pd.DataFrame | None,
    exclusions: pd.DataFrame | None,
    agreement: pd.DataFrame | None,
    weak: bool,
) -> dict[str, Any]:
    numbers: dict[str, Any] = {"probe": {**probe, "below_floor": weak}}
    if pairs is not None and len(pairs):
        numbers["pairs"] = {
            "n": len(pairs),
            "n_sham": int(truth(pairs["is_sham"]).sum()),
            "n_clusters": int(pairs["cluster"].nunique()),
            "splits": pairs["split"].astype(str).value_counts().to_dict(),
            "kinds": pairs["kind"].astype(str).value_counts().to_dict(),
        }
    numbers["exclusions"] = (
        {} if exclusions is None or exclusions.empty else exclusions["reason"].value_counts().to_dict()
    )
    numbers["agreement"] = [] if agreement is None else agreement
    return numbers
