"""How much a test must be discounted because sequences of a cluster are relatives.

Members of a family resemble each other in their features and in their labels, so n sequences carry less
information than n independent ones, and a rank test that takes them for independent finds too much. With the
contribution u_i = (residual rank of the feature) x (residual of the property) of each sequence, the variance
of their sum is estimated once by clusters and once by sequences; the ratio is the design effect

    deff = sum_c (sum_{i in c} (u_i - mean u))^2 / sum_i (u_i - mean u)^2

(Kish 1965; the cluster-robust variance of Liang and Zeger 1986). Test statistics are divided by its root (a
chi-square or F by the mean over its degrees of freedom, the first-order correction of Rao and Scott 1984).
It is never taken below one: clusters may cost information, they do not create it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Bool, Float

from helix_sae.statistics.association import as_sorted
from helix_sae.statistics.partial import (
    DEFAULT_EXCLUSIONS,
    Covariate,
    covariate_basis,
    group_by_sample,
    residual_vectors,
)
from helix_sae.statistics.properties import Property
from helix_sae.statistics.ranks import mid_ranks


@numba.njit(cache=True, nogil=True)
def _ratios(
    indptr: Any, rows: Any, leads: Any, n_negative: Any, place: Any, basis: Any, targets: Any, bounds: Any
) -> Any:  # pragma: no cover - compiled
    """Design effect of each column and target; rows of ``basis`` and ``targets`` are ordered by cluster.

    ``place`` gives a row's position in that order, or -1; ``bounds`` where clusters start.
    """
    n_columns = indptr.shape[0] - 1
    n, n_targets = targets.shape
    n_clusters = bounds.shape[0] - 1
    ratios = np.full((n_columns, n_targets), np.nan)
    inside = place >= 0
    residual = np.empty(n)
    loading = np.empty(basis.shape[1])
    mean = np.empty(n_targets)
    single = np.empty(n_targets)
    grouped = np.empty(n_targets)
    within = np.empty(n_targets)
    for column in range(n_columns):
        start, stop = indptr[column], indptr[column + 1]
        ranks = np.empty(stop - start)
        residual[:], _ = mid_ranks(rows[start:stop], leads[start:stop], n_negative[column], inside, n, ranks)
        for j in range(start, stop):
            if inside[rows[j]]:
                residual[place[rows[j]]] = ranks[j - start]
        loading[:] = 0.0
        for i in range(n):
            for k in range(basis.shape[1]):
                loading[k] += basis[i, k] * residual[i]
        mean[:] = 0.0
        for i in range(n):
            for k in range(basis.shape[1]):
                residual[i] -= basis[i, k] * loading[k]
            for t in range(n_targets):
                mean[t] += residual[i] * targets[i, t]
        single[:] = 0.0
        grouped[:] = 0.0
        for c in range(n_clusters):
            within[:] = 0.0
            for i in range(bounds[c], bounds[c + 1]):
                for t in range(n_targets):
                    u = residual[i] * targets[i, t] - mean[t] / n
                    within[t] += u
                    single[t] += u * u
            for t in range(n_targets):
                grouped[t] += within[t] * within[t]
        for t in range(n_targets):
            if single[t] > 0:
                ratios[column, t] = grouped[t] / single[t] * n_clusters / (n_clusters - 1.0) * (n - 1.0) / n
    return ratios


def design_effects(
    features: Any,
    properties: Sequence[Property],
    clusters: Any,
    rows: Bool[np.ndarray, " n_sequences"] | None = None,
    covariates: Sequence[Covariate] = (),
    exclusions: Mapping[str, Sequence[str]] = DEFAULT_EXCLUSIONS,
) -> Float[np.ndarray, "n_features n_properties"]:
    """Design effect of every (partial) rank test.

    Parameters
    ----------
    features : sparse (n_sequences, n_features) or SortedColumns
    properties : sequence of Property
    clusters : array (n_sequences,)
        Family of each sequence.
    rows : bool (n_sequences,), optional
        Sequences that take part.
    covariates, exclusions
        As in :func:`~helix_sae.statistics.partial.partial_associations`; none for the raw tests.

    Returns
    -------
    float64 (n_features, n_properties)
        At least 1; exactly 1 where every cluster is a single sequence, and where no test can be made.
    """
    columns = as_sorted(features)
    inside = np.ones(columns.n_rows, dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
    family = pd.factorize(np.asarray(clusters, dtype=object))[0]
    effects = np.ones((columns.n_columns, len(properties)))
    for mask, used, members in group_by_sample(properties, covariates, exclusions, inside):
        chosen = np.flatnonzero(mask)
        order = chosen[np.argsort(family[chosen], kind="stable")]
        bounds = np.flatnonzero(np.diff(family[order], prepend=-1, append=-1))
        if len(bounds) - 1 == len(order) or len(bounds) < 3:
            continue
        basis = covariate_basis(used, mask)
        targets = [residual_vectors(properties[index], mask, basis) for index in members]
        place = np.full(columns.n_rows, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        ratios = _ratios(
            columns.indptr,
            columns.rows,
            columns.leads,
            columns.n_negative,
            place,
            np.ascontiguousarray(basis[order]),
            np.ascontiguousarray(np.column_stack(targets)[order]),
            bounds,
        )
        stop = 0
        for index, target in zip(members, targets, strict=True):
            start, stop = stop, stop + target.shape[1]
            if stop > start:
                effects[:, index] = _at_least_one(ratios[:, start:stop])
    return effects


def _at_least_one(ratios: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean = ratios.mean(axis=1)
    return np.where(np.isnan(mean), 1.0, np.maximum(mean, 1.0))
