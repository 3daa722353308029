"""Estimates on the validation clusters, for what the discovery clusters selected."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from helix_sae.statistics.bootstrap import (
    bootstrap_effects,
    fisher_z_interval,
    rank_biserial_error,
    replication_rate,
)
from helix_sae.statistics.multiple_testing import Correction, adjust
from helix_sae.statistics.properties import Property
from helix_sae.statistics.study import Study, discounted_tests

BoolArray = npt.NDArray[np.bool_]
NEARLY_ONE = 1 - 1e-6  # correlations are kept this far inside (-1, 1) on Fisher's z scale


def validate(
    significant: pd.DataFrame,
    study: Study,
    alpha: float,
    correction: Correction,
    n_resamples: int,
    max_bootstrapped: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Add estimates, intervals and replication on the validation clusters.

    An association replicates when its validation q-value (over all significant ones, one-sided in the
    direction found) is at most alpha and its cluster interval excludes zero. What was carried here for its
    partial correlation alone can only replicate in that.

    Parameters
    ----------
    significant : DataFrame
        Associations that passed on the discovery clusters, raw (by falling size of effect) or, after these,
        partial.
    study : Study
    alpha, correction, n_resamples, max_bootstrapped, confidence, seed
        As in :func:`~helix_sae.statistics.associate.associate`.

    Returns
    -------
    DataFrame
        ``significant`` with the columns that
        :class:`~helix_sae.statistics.associate.AssociationTables` describes.
    """
    index_of = {p.name: i for i, p in enumerate(study.properties)}
    position = significant["property"].map(index_of).to_numpy(dtype=np.int64, na_value=0)
    new = _estimates(significant, study, position)
    new |= _intervals(
        significant, study, position, new["effect"], n_resamples, max_bootstrapped, confidence, seed
    )
    signed = significant["kind"].to_numpy() != "categorical"
    for prefix in ("", "partial_"):
        same_sign = np.sign(new[f"{prefix}effect"]) == np.sign(significant[f"{prefix}effect"].to_numpy())
        one_sided = np.where(same_sign, new[f"{prefix}p_value"] / 2, 1 - new[f"{prefix}p_value"] / 2)
        new[f"{prefix}p_value"] = np.where(signed, one_sided, new[f"{prefix}p_value"])
    new["q_value"] = adjust(np.where(significant["significant"], new["p_value"], np.nan), correction)
    excludes_zero = np.where(signed, (new["low"] > 0) | (new["high"] < 0), True)
    carried = np.where(significant["partial_significant"], new["partial_p_value"], np.nan)
    order = ("n", "effect", "low", "high", "p_value", "q_value", "partial_effect", "partial_p_value")
    return significant.assign(
        **{f"validation_{name}": new[name] for name in order},
        interval_method=new["interval_method"],
        replicated=(new["q_value"] <= alpha) & excludes_zero,
        partial_replicated=adjust(carried, correction) <= alpha,
    )


def _estimates(
    significant: pd.DataFrame, study: Study, position: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Effects and two-sided p-values on the validation clusters."""
    names = ("n", "effect", "p_value", "partial_effect", "partial_p_value")
    new: dict[str, npt.NDArray[Any]] = {name: np.full(len(significant), np.nan) for name in names}
    feature = significant["feature"].to_numpy(dtype=np.int64)
    for site in study.columns:
        at = np.flatnonzero(significant["site"].to_numpy() == site)
        if not len(at):
            continue
        raw, _, partial = discounted_tests(study, site, study.validation)
        pairs = feature[at], position[at]
        new["n"][at] = raw.n[position[at]]
        new["effect"][at], new["p_value"][at] = raw.effect[pairs], raw.p_value[pairs]
        new["partial_effect"][at], new["partial_p_value"][at] = partial.effect[pairs], partial.p_value[pairs]
    return new


def _intervals(
    significant: pd.DataFrame,
    study: Study,
    position: npt.NDArray[np.int64],
    effect: npt.NDArray[np.float64],
    n_resamples: int,
    max_bootstrapped: int,
    confidence: float,
    seed: int,
) -> dict[str, npt.NDArray[Any]]:
    """Bootstrap intervals of the strongest associations, a closed form for the rest."""
    low, high = np.full((2, len(significant)), np.nan)
    method = np.full(len(significant), "closed_form", dtype=object)
    feature = significant["feature"].to_numpy(dtype=np.int64)
    sites = significant["site"].to_numpy()
    for site, (k, property_) in product(study.columns, enumerate(study.properties)):
        here = np.flatnonzero((sites == site) & (position == k))
        strongest, rest = here[here < max_bootstrapped], here[here >= max_bootstrapped]
        if len(rest):
            low[rest], high[rest] = _closed_form(
                property_, effect[rest], study.validation, study.clusters, confidence
            )
        if len(strongest):
            found = bootstrap_effects(
                study.columns[site],
                feature[strongest],
                property_,
                study.clusters,
                rows=study.validation,
                n_resamples=n_resamples,
                confidence=confidence,
                seed=seed,
            )
            low[strongest], high[strongest] = found[:, 0], found[:, 1]
            method[strongest] = "cluster_bootstrap"
    return {"low": low, "high": high, "interval_method": method}


def _closed_form(
    property_: Property,
    effect: npt.NDArray[np.float64],
    rows: BoolArray,
    clusters: npt.NDArray[Any],
    confidence: float,
) -> tuple[Any, Any]:
    """Interval with the number of clusters in place of the number of sequences: conservative for families."""
    mask = rows & ~np.isnan(property_.values)
    n, n_clusters = int(mask.sum()), len(pd.unique(clusters[mask]))
    if property_.kind == "continuous":
        return fisher_z_interval(effect, n_clusters, confidence)
    if property_.kind == "binary":
        ones = int((property_.values[mask] == 1).sum())
        shrink = n_clusters / max(n, 1)
        error = rank_biserial_error(effect, (n - ones) * shrink, ones * shrink)
        bounded = np.clip(effect, -NEARLY_ONE, NEARLY_ONE)
        half = special.ndtri(0.5 + confidence / 2) * error / (1 - bounded**2)
        return np.tanh(np.arctanh(bounded) - half), np.tanh(np.arctanh(bounded) + half)
    return np.full(len(effect), np.nan), np.full(len(effect), np.nan)


def replication_table(significant: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Replication over everything, by site, by property, and by both; see ``AssociationTables.validation``."""
    rows: list[dict[str, Any]] = []
    groups: list[tuple[tuple[str, str, str], pd.DataFrame]] = [(("all", "all", "all"), significant)]
    groups += [((s, "all", "all"), g) for s, g in significant.groupby("site", sort=False)]
    groups += [(("all", c, p), g) for (c, p), g in significant.groupby(["category", "property"], sort=True)]
    groups += [(k, g) for k, g in significant.groupby(["site", "category", "property"], sort=False)]
    for (site, category, name), group in groups:
        rate, low, high = replication_rate(group["replicated"].to_numpy(dtype=bool), confidence)
        rows.append(
            {
                "site": site,
                "category": category,
                "property": name,
                "n_significant": len(group),
                "n_replicated": int(group["replicated"].sum()),
                "replication_rate": rate,
                "rate_low": low,
                "rate_high": high,
                "median_effect": float(group["effect"].abs().median()),
                "median_validation_effect": float(
                    (group["validation_effect"] * np.sign(group["effect"])).median()
                ),
            }
        )
    return pd.DataFrame(rows)
