"""Intervals and tests that respect clusters: resampling whole families, never single relatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import special, stats

from helix_sae.errors import AnalysisError
from helix_sae.statistics.association import as_sorted
from helix_sae.statistics.properties import Property

FloatArray = npt.NDArray[np.float64]
_BYTES = 256 * 2**20  # of resampling weights held at once


class Interval(NamedTuple):
    """An estimate with its percentile interval.

    ``estimate`` is the statistic of the data themselves, ``standard_error`` the standard deviation over the
    resamples, ``n_clusters`` what was resampled.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    n_clusters: int


def _check_resamples(n_resamples: int) -> None:
    if n_resamples < 2000:
        raise AnalysisError(f"A 95 % percentile interval needs at least 2000 resamples, not {n_resamples}.")


def cluster_weights(
    clusters: Any, n_resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "n_clusters n_resamples"]:
    """How often each cluster is drawn in each resample (with replacement, as many clusters as there are)."""
    n_clusters = len(np.unique(clusters))
    draws = rng.multinomial(n_clusters, np.full(n_clusters, 1.0 / n_clusters), size=n_resamples)
    return np.ascontiguousarray(draws.T.astype(np.int32))


def cluster_bootstrap(
    statistic: Callable[[Int[np.ndarray, " n_drawn"]], float],
    clusters: Any,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any statistic, by resampling clusters (Davison and Hinkley 1997, section 3.8).

    Parameters
    ----------
    statistic : callable
        Takes row indices (with repeats), returns a number; NaN results are left out.
    clusters : array (n_rows,)
        Cluster of each row.
    n_resamples : int
        At least 2,000.
    confidence : float
        Between 0 and 1.
    seed : int

    Returns
    -------
    Interval
        With NaN bounds when fewer than two clusters exist.
    """
    _check_resamples(n_resamples)
    codes, _ = pd.factorize(np.asarray(clusters, dtype=object))
    n_clusters = int(codes.max()) + 1 if len(codes) else 0
    estimate = float(statistic(np.arange(len(codes))))
    if n_clusters < 2:
        return Interval(estimate, float("nan"), float("nan"), float("nan"), n_clusters)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    values = np.empty(n_resamples)
    for index in range(n_resamples):
        drawn = rng.integers(0, n_clusters, n_clusters)
        values[index] = statistic(np.concatenate([members[c] for c in drawn]))
    return _interval(estimate, values, confidence, n_clusters)


def cluster_bootstrap_mean(
    values: Float[np.ndarray, "n_rows"],
    clusters: Any,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The same for a mean, in one matrix product over cluster sums. NaN values are left out."""
    _check_resamples(n_resamples)
    values = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(values)
    codes, _ = pd.factorize(np.asarray(clusters, dtype=object)[present])
    if not len(codes):
        raise AnalysisError("The mean of no value has no interval: all values are missing.")
    n_clusters = int(codes.max()) + 1
    estimate = float(values[present].mean())
    if n_clusters < 2:
        return Interval(estimate, float("nan"), float("nan"), float("nan"), n_clusters)
    sums = np.bincount(codes, weights=values[present])
    sizes = np.bincount(codes)
    weights = cluster_weights(codes, n_resamples, np.random.default_rng(seed))
    return _interval(estimate, (sums @ weights) / (sizes @ weights), confidence, n_clusters)


def _interval(estimate: float, values: FloatArray, confidence: float, n_clusters: int) -> Interval:
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(estimate, float("nan"), float("nan"), float("nan"), n_clusters)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high), float(values.std(ddof=1)), n_clusters)


def sign_flip_test(
    values: Float[np.ndarray, "n_rows"],
    clusters: Any,
    *,
    n_flips: int = 10_000,
    alternative: str = "two-sided",
    seed: int = 0,
) -> float:
    """p-value that the values are symmetric about zero, flipping whole clusters.

    All sign patterns are used when there are at most ``n_flips`` of them, else random ones with the observed
    pattern counted in, so that the p-value is never zero and the test is exact (Hemerik and Goeman 2018).

    Parameters
    ----------
    values : float (n_rows,)
        Differences; NaN is left out.
    clusters : array (n_rows,)
        Cluster of each row; the sum of a cluster keeps or flips its sign as a whole.
    n_flips : int
    alternative : {"two-sided", "greater", "less"}
    seed : int
    """
    values = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(values)
    codes, _ = pd.factorize(np.asarray(clusters, dtype=object)[present])
    if not len(codes):
        return float("nan")
    sums = np.bincount(codes, weights=values[present])
    n_clusters = len(sums)
    exhaustive = n_clusters < 63 and 2**n_clusters <= n_flips
    if exhaustive:
        patterns = (np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)[None, :]) & 1
        flipped = (1.0 - 2.0 * patterns) @ sums
    else:
        rng = np.random.default_rng(seed)
        blocks = np.array_split(np.arange(n_flips), max(1, n_flips * n_clusters * 8 // _BYTES))
        flipped = np.concatenate([rng.choice([-1.0, 1.0], size=(len(b), n_clusters)) @ sums for b in blocks])
    observed = sums.sum()
    slack = 1e-12 * np.abs(sums).sum()
    if alternative == "greater":
        extreme = (flipped >= observed - slack).sum()
    elif alternative == "less":
        extreme = (flipped <= observed + slack).sum()
    else:
        extreme = (np.abs(flipped) >= abs(observed) - slack).sum()
    return float(extreme / len(flipped)) if exhaustive else float((extreme + 1) / (len(flipped) + 1))


# ---------------------------------------------------------------- rank effects of sparse features


@numba.njit(cache=True, nogil=True)
def _weighted_rank_products(
    rows: Any, leads: Any, n_negative: int, weights: Any, totals: Any, targets: Any
) -> Any:  # pragma: no cover - compiled
    """Rank products of one column in every resample at once.

    ``weights`` (n_rows, n_resamples) counts how often a row is drawn, ``targets`` (n_vectors, n_rows,
    n_resamples) is weight x property. Returns products, zero rank and tie term of each resample.
    """
    n_resamples = weights.shape[1]
    n_vectors = targets.shape[0]
    below = np.zeros(n_resamples)
    above = np.zeros(n_resamples)
    for i in range(rows.shape[0]):
        into = below if i < n_negative else above
        drawn = weights[rows[i]]
        for b in range(n_resamples):
            into[b] += drawn[b]
    zeros = totals - below - above
    at_zero = below + 0.5 * (zeros + 1.0)
    ties = zeros * zeros * zeros - zeros
    products = np.zeros((n_vectors, n_resamples))
    before = np.zeros(n_resamples)
    size = np.empty(n_resamples)
    lift = np.empty(n_resamples)
    i = 0
    while i < rows.shape[0]:
        if i == n_negative:
            before += zeros
        end = i + 1
        while end < rows.shape[0] and not leads[end]:
            end += 1
        size[:] = 0.0
        for j in range(i, end):
            drawn = weights[rows[j]]
            for b in range(n_resamples):
                size[b] += drawn[b]
        for b in range(n_resamples):
            lift[b] = before[b] + 0.5 * (size[b] + 1.0) - at_zero[b]
            before[b] += size[b]
            ties[b] += size[b] * size[b] * size[b] - size[b]
        for k in range(n_vectors):
            for j in range(i, end):
                target = targets[k, rows[j]]
                for b in range(n_resamples):
                    products[k, b] += lift[b] * target[b]
        i = end
    return products, at_zero, ties


def bootstrap_effects(
    features: Any,
    feature_indices: Int[np.ndarray, " n_pairs"],
    property_: Property,
    clusters: Any,
    *,
    rows: Bool[np.ndarray, " n_sequences"] | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Float[np.ndarray, "n_pairs 3"]:
    """Cluster-bootstrap intervals of the rank effects of many features with one property.

    Every resample ranks anew, features and property both: the interval is that of the whole statistic, not
    of a correlation of fixed ranks.

    Parameters
    ----------
    features : sparse (n_sequences, n_features) or SortedColumns
    feature_indices : int (n_pairs,)
        Columns that are wanted.
    property_ : Property
    clusters : array (n_sequences,)
        Cluster of each sequence.
    rows : bool (n_sequences,), optional
        Sequences that take part (the validation split).
    n_resamples : int
        At least 2,000.
    confidence : float
    seed : int

    Returns
    -------
    float64 (n_pairs, 3)
        Lower bound, upper bound, standard error; NaN when fewer than two clusters are there.
    """
    _check_resamples(n_resamples)
    columns = as_sorted(features)
    mask = ~np.isnan(property_.values)
    if rows is not None:
        mask &= np.asarray(rows, dtype=bool)
    intervals = np.full((len(feature_indices), 3), np.nan)
    inside = np.flatnonzero(mask)
    codes, _ = pd.factorize(np.asarray(clusters, dtype=object)[inside])
    if not len(inside) or codes.max() < 1:
        return intervals
    place = np.full(columns.n_rows, -1, dtype=np.int32)
    place[inside] = np.arange(len(inside))
    members = [_members(columns, int(feature), place) for feature in feature_indices]
    effects = np.empty((len(feature_indices), n_resamples), dtype=np.float32)
    rng = np.random.default_rng(seed)
    step = max(1, min(n_resamples, _BYTES // (len(inside) * 16)))
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        weights = cluster_weights(codes, stop - start, rng)[codes].astype(np.float32)
        totals = weights.sum(axis=0, dtype=np.float64)
        targets, sizes = _weighted_targets(property_, inside, weights, totals)
        for pair, member in enumerate(members):
            parts = _weighted_rank_products(*member, weights, totals, targets)
            effects[pair, start:stop] = _effects(property_.kind, parts, totals, sizes)
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(effects).sum(axis=1) >= 0.5 * n_resamples
        if usable.any():
            intervals[usable, :2] = np.nanquantile(effects[usable], [tail, 1 - tail], axis=1).T
            intervals[usable, 2] = np.nanstd(effects[usable], axis=1, ddof=1)
    return intervals


def _members(columns: Any, feature: int, place: npt.NDArray[np.int32]) -> tuple[Any, Any, int]:
    """Non-zeros of one column among the rows that take part, still by rising value."""
    start, stop = columns.indptr[feature], columns.indptr[feature + 1]
    rows = place[columns.rows[start:stop]]
    inside = rows >= 0
    groups = np.cumsum(columns.leads[start:stop])[inside]
    leads = np.concatenate([[True], groups[1:] != groups[:-1]]) if len(groups) else np.empty(0, dtype=bool)
    n_negative = int(inside[: columns.n_negative[feature]].sum())
    return rows[inside], leads, n_negative


def _weighted_targets(
    property_: Property, inside: npt.NDArray[np.int64], weights: npt.NDArray[np.float32], totals: FloatArray
) -> tuple[npt.NDArray[np.float64], FloatArray]:
    """weight x centred rank of the property (or class indicator) in each resample, and what normalises it."""
    values = property_.values[inside]
    if property_.kind == "continuous":
        levels, level = np.unique(values, return_inverse=True)
        order = np.argsort(level, kind="stable")
        starts = np.searchsorted(level[order], np.arange(len(levels)))
        counts = np.add.reduceat(weights[order].astype(np.float64), starts, axis=0)
        ranks = np.cumsum(counts, axis=0) - 0.5 * (counts - 1.0)
        ranks -= 0.5 * (totals + 1.0)
        squares = (counts * ranks**2).sum(axis=0)
        return (ranks[level] * weights)[None], squares[None]
    present = np.unique(values) if property_.kind == "categorical" else np.array([1.0])
    targets = np.stack([np.where((values == c)[:, None], weights, 0.0).astype(np.float64) for c in present])
    return targets, targets.sum(axis=1)


def _effects(kind: str, parts: Any, totals: FloatArray, sizes: FloatArray) -> FloatArray:
    products, at_zero, ties = parts
    squares = (totals**3 - totals - ties) / 12.0
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "continuous":
            return products[0] / np.sqrt(squares * sizes[0])
        rank_sums = products + at_zero * sizes
        if kind == "binary":
            n1, n0 = sizes[0], totals - sizes[0]
            return 2.0 * (rank_sums[0] - n1 * (n1 + 1) / 2.0) / (n0 * n1) - 1.0
        between = (rank_sums - sizes * (totals + 1) / 2.0) ** 2 / sizes
        # H / (N - 1) with H = between-class share of the rank variance x (N - 1)
        return np.where(sizes > 0, between, 0.0).sum(axis=0) / squares


# ---------------------------------------------------------------- closed forms


def fisher_z_interval(
    correlation: Any, n: Any, confidence: float = 0.95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Interval of a Spearman correlation by Fisher's z with the variance of Bonett and Wright (2000).

    ``n`` is the number of independent units (clusters, where sequences are relatives). NaN below n = 4.
    """
    rho = np.asarray(correlation, dtype=np.float64)
    n = np.asarray(n, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = special.ndtri(0.5 + confidence / 2) * np.sqrt(
            (1 + rho**2 / 2) / np.where(n > 3, n - 3, np.nan)
        )
        z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    return np.tanh(z - half), np.tanh(z + half)


def rank_biserial_error(effect: Any, n0: Any, n1: Any) -> FloatArray:
    """Standard error of a rank-biserial correlation, from that of its AUC (Hanley and McNeil 1982)."""
    auc = (np.asarray(effect, dtype=np.float64) + 1) / 2
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    n0, n1 = np.asarray(n0, dtype=np.float64), np.asarray(n1, dtype=np.float64)
    variance = (auc * (1 - auc) + (n1 - 1) * (q1 - auc**2) + (n0 - 1) * (q2 - auc**2)) / (n0 * n1)
    return 2 * np.sqrt(np.maximum(variance, 0.0))


class RandomEffects(NamedTuple):
    """A random-effects combination; arrays over whatever was combined.

    ``i_squared`` is the share of variance between sources beyond chance (Higgins and Thompson 2002).
    """

    effect: FloatArray
    standard_error: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    tau_squared: FloatArray
    i_squared: FloatArray
    n_sources: npt.NDArray[np.int64]


def random_effects(effects: Any, standard_errors: Any, confidence: float = 0.95) -> RandomEffects:
    """Combine one effect per source by DerSimonian and Laird (1986).

    Parameters
    ----------
    effects, standard_errors : float (n_sources, ...)
        One row a source; NaN (in either) leaves that source out.
    confidence : float

    Returns
    -------
    RandomEffects
        NaN where fewer than two sources are left.
    """
    y = np.asarray(effects, dtype=np.float64)
    se = np.asarray(standard_errors, dtype=np.float64)
    usable = np.isfinite(y) & np.isfinite(se) & (se > 0)
    w = np.where(usable, 1.0 / np.where(usable, se, 1.0) ** 2, 0.0)
    y = np.where(usable, y, 0.0)
    k = usable.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        fixed = (w * y).sum(axis=0) / w.sum(axis=0)
        q = (w * (y - fixed) ** 2).sum(axis=0)
        scale = w.sum(axis=0) - (w**2).sum(axis=0) / w.sum(axis=0)
        tau_squared = np.maximum((q - (k - 1)) / scale, 0.0)
        i_squared = np.where(q > 0, np.maximum((q - (k - 1)) / q, 0.0), 0.0)
        w_star = np.where(usable, 1.0 / (1.0 / np.where(w > 0, w, 1.0) + tau_squared), 0.0)
        effect = (w_star * y).sum(axis=0) / w_star.sum(axis=0)
        error = np.sqrt(1.0 / w_star.sum(axis=0))
        p = 2 * special.ndtr(-np.abs(effect / error))
    half = special.ndtri(0.5 + confidence / 2) * error
    parts = (effect, error, effect - half, effect + half, p, tau_squared, i_squared)
    few = k < 2
    return RandomEffects(*(np.where(few, np.nan, part) for part in parts), np.asarray(k, dtype=np.int64))  # pyright: ignore[reportCallIssue]


def replication_rate(
    replicated: Sequence[bool] | npt.NDArray[np.bool_], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Share that replicated with its Wilson interval: (rate, low, high); NaN when nothing was tried."""
    tried = len(replicated)
    if not tried:
        return float("nan"), float("nan"), float("nan")
    hits = int(np.sum(replicated))
    low, high = stats.binomtest(hits, tried).proportion_ci(confidence, method="wilson")
    return hits / tried, float(low), float(high)
