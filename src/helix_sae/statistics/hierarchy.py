"""What kind of biology the features of each site stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helix_sae.statistics.properties import CATEGORIES

NO_CATEGORY = "none"


def feature_hierarchy(
    significant: pd.DataFrame,
    best_matches: pd.DataFrame,
    summary: pd.DataFrame,
    *,
    replicated_only: bool = True,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Share of the alive features of each site by category of biology.

    Parameters
    ----------
    significant, best_matches, summary : DataFrame
        From :func:`~helix_sae.statistics.associate.associate`.
    replicated_only : bool
        Count only what replicated on the validation clusters.
    confidence : float
        Of the Wilson intervals of the shares.

    Returns
    -------
    DataFrame, one row a (site, category), sites in the order of ``summary``
        ``site``, ``category`` (structural, functional, regulatory, others that occur, and ``none`` for alive
        features without an association), ``n_alive``; ``n_best``, ``share_best``, ``share_best_low``,
        ``share_best_high``: features whose best match is in the category (the shares of a site sum to 1);
        ``n_any``, ``share_any``: features with any association in it; ``median_effect``: median |effect| of
        the best matches on the discovery clusters; ``top_property``: the most frequent best match.
    """
    if replicated_only:
        # A column without rows has lost its type where the table was kept as CSV.
        significant = significant[significant["replicated"].astype(bool)]
        best_matches = best_matches[best_matches["replicated"].astype(bool)]
    found = [str(c) for c in pd.unique(significant["category"])] if len(significant) else []
    categories = [*CATEGORIES, *(c for c in sorted(found) if c not in CATEGORIES)]
    rows: list[dict[str, Any]] = []
    for site, n_alive in zip(summary["site"], summary["n_alive"], strict=True):
        best = best_matches[best_matches["site"] == site]
        any_of = significant[significant["site"] == site]
        for category in categories:
            chosen = best[best["category"] == category]
            rows.append(
                _row(site, category, int(n_alive), len(chosen), confidence)
                | {
                    "n_any": int(any_of.loc[any_of["category"] == category, "feature"].nunique()),
                    "median_effect": float(chosen["effect"].abs().median()) if len(chosen) else np.nan,
                    "top_property": str(chosen["property"].mode().iloc[0]) if len(chosen) else None,
                }
            )
        without = int(n_alive) - len(best)
        rows.append(
            _row(site, NO_CATEGORY, int(n_alive), without, confidence)
            | {"n_any": without, "median_effect": np.nan, "top_property": None}
        )
    table = pd.DataFrame(rows)
    table["share_any"] = table["n_any"] / table["n_alive"].where(table["n_alive"] > 0)
    order = ["site", "category", "n_alive", "n_best", "share_best", "share_best_low", "share_best_high"]
    return table[[*order, "n_any", "share_any", "median_effect", "top_property"]]


def _row(site: str, category: str, n_alive: int, count: int, confidence: float) -> dict[str, Any]:
    share = low = high = np.nan
    if n_alive:
        share = count / n_alive
        low, high = stats.binomtest(count, n_alive).proportion_ci(confidence, method="wilson")
    return {
        "site": site,
        "category": category,
        "n_alive": n_alive,
        "n_best": count,
        "share_best": share,
        "share_best_low": float(low),
        "share_best_high": float(high),
    }
