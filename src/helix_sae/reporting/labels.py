"""Labels of features that the evidence suggests.

A suggestion is made by a rule, names it, and is always shown as a suggestion. Where no rule holds there is
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helix_sae.figures.style import property_label
from helix_sae.names import ERROR
from helix_sae.reporting.document import truth
from helix_sae.reporting.features import best_rivals
from helix_sae.reporting.wording import fixed, signed, words

LEAST_F1 = 0.5
"""A concept is suggested as a label from here on."""


def suggestions(
    features: pd.DataFrame, causes: pd.DataFrame | None = None, baselines: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What the evidence suggests to call each feature: the first rule that holds.

    1. It is confirmed to carry a cause by itself (the strongest that is no decoy).
    2. It matches a concept with an F1 of at least :data:`LEAST_F1`, beyond the best other detector of it.
    3. Its strongest association with a property was found again on validation families.

    Parameters
    ----------
    features : DataFrame
        :func:`helix_sae.reporting.features.feature_table`.
    causes : DataFrame, optional
        ``site, feature, kind, role, effect, confirmed``.
    baselines : DataFrame, optional
        ``concept, kind, f1``; without them the second rule holds for no feature.

    Returns
    -------
    DataFrame
        ``suggested`` and ``rule`` for each row of ``features``; empty texts where no rule holds.
    """
    carried = _carried(causes)
    rivals = best_rivals(baselines)
    found = [_suggestion(row, carried, rivals) for row in features.to_dict("records")]
    return pd.DataFrame(found, columns=["suggested", "rule"], index=features.index)


def _suggestion(
    row: Mapping[Any, Any],
    carried: Mapping[tuple[str, int], tuple[str, float]],
    rivals: Mapping[str, tuple[str, float]],
) -> tuple[str, str]:
    cause = carried.get((str(row["site"]), int(row["feature"])))
    if cause is not None:
        kind, effect = cause
        return f"carries {words(kind)}", f"confirmed cause, effect {signed(effect, 3)}"
    concept, f1 = row.get("best_concept"), row.get("best_concept_f1")
    rival = rivals.get(str(concept))
    if pd.notna(concept) and rival is not None and f1 is not None and f1 >= LEAST_F1 and f1 > rival[1]:
        beyond = f"beyond the best other detector ({words(rival[0])} {fixed(rival[1])})"
        return words(concept), f"concept with F1 {fixed(f1)}, {beyond}"
    if str(row.get("association_replicated")) == "True":
        size = float(row["association"])
        name = property_label(str(row["best_property"]))
        return f"{'more' if size > 0 else 'less'} {name}", f"strongest replicated association, {signed(size)}"
    return "", ""


def _carried(causes: pd.DataFrame | None) -> dict[tuple[str, int], tuple[str, float]]:
    """The strongest confirmed cause of each feature."""
    if causes is None or causes.empty:
        return {}
    true = causes[truth(causes["confirmed"]) & (causes["role"] != "decoy")]
    true = true[true["feature"].astype(str) != ERROR]
    best = true.assign(_size=true["effect"].abs()).sort_values("_size", kind="stable")
    keys = zip(best["site"].astype(str), best["feature"].astype(int), strict=True)
    return dict(zip(keys, zip(best["kind"].astype(str), best["effect"], strict=True), strict=True))
