"""Do sequences on which a feature is high really differ? A check on held-out clusters that needs no ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.statistics.bootstrap import cluster_weights
from helix_sae.statistics.properties import Property, prepare_properties

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def high_low_validation(
    codes: Mapping[str, Any],
    table: pd.DataFrame,
    split: Any,
    pairs: pd.DataFrame,
    *,
    quantile: float = 0.9,
    min_each: int = 5,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare a property between sequences of high and of low activation on the validation clusters.

    Where high and low begin is decided on the discovery clusters: the ``quantile`` and ``1 - quantile`` of
    the feature's pooled activation there. A feature that is silent on more than ``quantile`` of the sequences
    is high wherever it is active; low is silence wherever the lower quantile is zero.

    Parameters
    ----------
    codes : mapping site -> sparse (n_sequences, n_features)
        Pooled codes, one row a row of ``table``.
    table : DataFrame
        The mRNA table with ``cluster``.
    split : array of str (n_sequences,)
        ``discovery`` and ``validation``.
    pairs : DataFrame
        ``site``, ``feature``, ``property``, ``effect`` (of discovery): for example the first rows of
        ``best_matches``. Properties of several classes have no high and low mean and are left out.
    quantile : float
        Above one half.
    min_each : int
        Comparisons with fewer high or low sequences get no estimates.
    n_resamples : int
        Cluster bootstrap; at least 2,000.
    confidence, seed

    Returns
    -------
    DataFrame, one row a pair
        ``site``, ``feature``, ``property``, ``category``, ``discovery_effect``, ``high_above``,
        ``low_at_most`` (activations), ``n_high``, ``n_low``, ``mean_high``, ``mean_low``, ``difference`` with
        ``difference_low``/``difference_high`` (in the property's unit; for two classes the difference of
        shares of class 1), ``hedges_g`` with its interval (standardised difference, Hedges 1981),
        ``cliffs_delta``, ``agrees`` (the interval excludes zero on the side of the discovery effect).
    """
    if not 0.5 < quantile < 1:
        raise ConfigurationError(f"quantile must lie between 0.5 and 1, not {quantile}.")
    if n_resamples < 2000:
        raise ConfigurationError(
            f"A 95 % percentile interval needs at least 2000 resamples, not {n_resamples}."
        )
    parts = np.asarray(split, dtype=object)
    discovery, validation = parts == "discovery", parts == "validation"
    names = list(dict.fromkeys(pairs["property"]))
    prepared, _ = prepare_properties(table, names, min_labels=2, min_per_class=1)
    by_name = {p.name: p for p in prepared if p.kind != "categorical"}
    columns = {site: sparse.csc_array(matrix) for site, matrix in codes.items()}
    family = pd.factorize(table["cluster"].to_numpy(dtype=object))[0]
    rows: list[dict[str, Any]] = []
    for pair in pairs.itertuples(index=False):
        if pair.property not in by_name:
            continue
        if pair.site not in columns:
            raise DataError(f"The pairs name site {pair.site!r}, the codes have {', '.join(columns)}.")
        activation = np.asarray(
            columns[pair.site][:, [int(pair.feature)]].todense(), dtype=np.float64
        ).ravel()
        high_above, low_at_most = _bounds(activation[discovery], quantile)
        property_ = by_name[pair.property]
        known = validation & ~np.isnan(property_.values)
        row = {
            "site": pair.site,
            "feature": int(pair.feature),
            "property": property_.name,
            "category": property_.category,
            "discovery_effect": float(pair.effect),
            "high_above": high_above,
            "low_at_most": low_at_most,
        }
        high = known & (activation > high_above)
        low = known & (activation <= low_at_most) & ~high
        rows.append(row | _compare(property_, high, low, family, min_each, n_resamples, confidence, seed))
    table_out = pd.DataFrame(rows, columns=None if rows else list(_COLUMNS))
    if len(table_out):
        sign = np.sign(table_out["discovery_effect"])
        low_bound, high_bound = table_out["difference_low"] * sign, table_out["difference_high"] * sign
        table_out["agrees"] = np.minimum(low_bound, high_bound) > 0
    return table_out


_ESTIMATES = (
    *("mean_high", "mean_low", "difference", "difference_low", "difference_high"),
    *("hedges_g", "hedges_g_low", "hedges_g_high", "cliffs_delta"),
)
_COLUMNS = (
    *("site", "feature", "property", "category", "discovery_effect", "high_above", "low_at_most"),
    *("n_high", "n_low", *_ESTIMATES, "agrees"),
)


def _bounds(activation: FloatArray, quantile: float) -> tuple[float, float]:
    """Activation above which a sequence is high, and at or below which it is low."""
    high, low = np.quantile(activation, [quantile, 1 - quantile])
    if high == activation.max(initial=0.0):  # many share the largest value: nothing would lie above it
        below = activation[activation < high]
        high = below.max(initial=low)
    return float(high), float(min(low, high))


def _compare(
    property_: Property,
    high: BoolArray,
    low: BoolArray,
    family: npt.NDArray[np.int64],
    min_each: int,
    n_resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    counts = {"n_high": int(high.sum()), "n_low": int(low.sum())}
    if min(counts.values()) < min_each:
        return counts | dict.fromkeys(_ESTIMATES, np.nan)
    either = high | low
    codes = pd.factorize(family[either])[0]
    values, is_high = property_.values[either], high[either]
    sums = np.stack(
        [
            np.bincount(codes, weights=weight * values**power, minlength=codes.max() + 1)
            for weight in (is_high.astype(np.float64), (~is_high).astype(np.float64))
            for power in (0, 1, 2)
        ]
    )
    mean_high, mean_low, g = (float(v[0]) for v in _moments(sums.sum(axis=1, keepdims=True)))
    weights = cluster_weights(codes, n_resamples, np.random.default_rng(seed))
    drawn_high, drawn_low, drawn_g = _moments(sums @ weights)  # pyright: ignore[reportArgumentType]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    with np.errstate(invalid="ignore"):
        difference = np.nanquantile(drawn_high - drawn_low, tails)
        standardised = np.nanquantile(drawn_g, tails) if np.isfinite(drawn_g).any() else (np.nan, np.nan)
    u = stats.rankdata(values)[is_high].sum() - counts["n_high"] * (counts["n_high"] + 1) / 2
    delta = 2 * u / (counts["n_high"] * counts["n_low"]) - 1
    numbers = (mean_high, mean_low, mean_high - mean_low, *difference, g, *standardised, delta)
    return counts | dict(zip(_ESTIMATES, map(float, numbers), strict=True))


def _moments(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means and Hedges' g from (n, sum, sum of squares) of high and low; NaN where one of them is empty."""
    n1, s1, q1, n0, s0, q0 = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        m1, m0 = s1 / n1, s0 / n0
        freedom = n1 + n0 - 2
        variance = (q1 - n1 * m1**2 + q0 - n0 * m0**2) / freedom
        small_sample = 1 - 3 / (4 * freedom - 1)
        g = small_sample * (m1 - m0) / np.sqrt(np.maximum(variance, 0))
    return m1, m0, np.where(np.isfinite(g), g, np.nan)
