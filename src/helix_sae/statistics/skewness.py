"""Tails of rank tests where both sides are sparse.

A feature that is active in a few sequences and a property that differs in a few leave a rank statistic with a
long tail: the normal and Student's approximations, exact enough at p = 0.05, are off by orders of magnitude
at the p = 1e-7 that a family of a hundred thousand tests turns on. Under permutation of the labels the third
moment of T = sum x_i y_i (x, y centred) is known in closed form,

    E[T^2] = Sxx Syy / (n - 1),   E[T^3] = n Sxxx Syyy / ((n - 1) (n - 2)),

and a Pearson type III distribution of that skewness follows the tail (Mielke and Berry, Permutation Methods,
2007). The p-values of scipy are kept beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
from jaxtyping import Bool, Float
from scipy import special

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

SMALLEST = 1e-3
"""Skewness below which the correction is left out: it changes nothing that is printed."""
_UNDERFLOW = 1e-290


@numba.njit(cache=True, nogil=True)
def _moments(
    indptr: Any, rows: Any, leads: Any, n_negative: Any, inside: Any
) -> Any:  # pragma: no cover - compiled
    """Sums of squares and of cubes of each column's centred mid-ranks on the rows inside."""
    n_columns = indptr.shape[0] - 1
    n = inside.sum()
    squares = np.zeros(n_columns)
    cubes = np.zeros(n_columns)
    for column in range(n_columns):
        start, stop = indptr[column], indptr[column + 1]
        ranks = np.empty(stop - start)
        at_zero, n_zero = mid_ranks(rows[start:stop], leads[start:stop], n_negative[column], inside, n, ranks)
        squares[column] = n_zero * at_zero**2
        cubes[column] = n_zero * at_zero**3
        for j in range(start, stop):
            if inside[rows[j]]:
                rank = ranks[j - start]
                squares[column] += rank * rank
                cubes[column] += rank * rank * rank
    return squares, cubes


def permutation_skewness(
    features: Any,
    properties: Sequence[Property],
    rows: Bool[np.ndarray, " n_sequences"] | None = None,
    covariates: Sequence[Covariate] = (),
    exclusions: Mapping[str, Sequence[str]] = DEFAULT_EXCLUSIONS,
) -> Float[np.ndarray, "n_features n_properties"]:
    """Skewness of every rank statistic under permutation of the labels.

    Parameters
    ----------
    features : sparse (n_sequences, n_features) or SortedColumns
    properties : sequence of Property
    rows : bool (n_sequences,), optional
        Sequences that take part.
    covariates, exclusions
        As in :func:`~helix_sae.statistics.partial.partial_associations`; none for the raw tests. The
        property's residual is used; the feature's skewness is taken from its ranks, of which few confounders
        change little.

    Returns
    -------
    float64 (n_features, n_properties)
        0 for properties of several classes, whose statistic has no sign, and where no test can be made.
    """
    columns = as_sorted(features)
    inside = np.ones(columns.n_rows, dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
    skewness = np.zeros((columns.n_columns, len(properties)))
    for mask, used, members in group_by_sample(properties, covariates, exclusions, inside):
        n = int(mask.sum())
        if n < 3:
            continue
        squares, cubes = _moments(columns.indptr, columns.rows, columns.leads, columns.n_negative, mask)
        of_feature = np.divide(cubes, squares**1.5, out=np.zeros_like(cubes), where=squares > 0)
        basis = covariate_basis(used, mask)
        for index in members:
            target = residual_vectors(properties[index], mask, basis)
            if properties[index].kind != "categorical" and target.shape[1] == 1:
                of_property = float((target[:, 0] ** 3).sum())  # of unit length
                skewness[:, index] = n * np.sqrt(n - 1) / (n - 2) * of_feature * of_property
    return skewness


def corrected_tails(
    p_value: Float[np.ndarray, "*shape"],
    effect: Float[np.ndarray, "*shape"],
    skewness: Float[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    """Two-sided p-values with the tail of a skewed null; never below the given ones.

    Parameters
    ----------
    p_value : float array
        Two-sided, by an approximation that knows no skewness; NaN stays NaN.
    effect : float array
        Its sign says which tail the statistic lies in.
    skewness : float array
        From :func:`permutation_skewness`.

    Returns
    -------
    float array of the same shape
    """
    usable = (np.abs(skewness) >= SMALLEST) & (p_value > _UNDERFLOW) & (p_value < 1) & np.isfinite(effect)
    corrected = np.array(p_value, dtype=np.float64)
    z = -special.ndtri(0.5 * corrected[usable])
    signed = skewness[usable] * np.sign(effect[usable])
    both = _upper_tail(z, signed) + _upper_tail(z, -signed)
    corrected[usable] = np.clip(np.maximum(corrected[usable], both), 0.0, 1.0)
    return corrected


def _upper_tail(z: Float[np.ndarray, " n"], skewness: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """P(X >= z) of a standardised Pearson type III variable; z >= 0."""
    shape = 4.0 / skewness**2
    root = np.sqrt(shape)
    long = special.gammaincc(shape, shape + z * root)
    short = special.gammainc(shape, np.maximum(shape - z * root, 0.0))
    return np.where(skewness > 0, long, short)
