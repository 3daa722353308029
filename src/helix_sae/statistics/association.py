"""Rank tests of all features against all properties at once.

=============  ==================  ============================================  ==================
property       test                effect                                        statistic
=============  ==================  ============================================  ==================
continuous     Spearman            rho in [-1, 1]                                rho
two classes    Mann-Whitney U      rank-biserial 2 U1 / (n1 n2) - 1, positive    U1 of class 1
                                   when class 1 is higher
more classes   Kruskal-Wallis      epsilon squared H / (n - 1), in [0, 1]        H
=============  ==================  ============================================  ==================

Statistics and p-values are those of ``scipy.stats.spearmanr``, ``mannwhitneyu(method="asymptotic")`` and
``kruskal`` (all two-sided, tie-corrected; Mann-Whitney with continuity correction) on the sequences that
carry a label, to 1e-10.

References: Kendall and Gibbons (1990), Rank Correlation Methods; Kerby (2014) for the rank-biserial
correlation; Tomczak and Tomczak (2014) for epsilon squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float
from scipy import special

from helix_sae.statistics.properties import Property
from helix_sae.statistics.ranks import (
    RankedRows,
    RankProducts,
    SortedColumns,
    centred_ranks,
    grouped_rank_products,
    sort_columns,
)

FloatArray = npt.NDArray[np.float64]


class Tests(NamedTuple):
    """One test for each feature and property.

    Attributes
    ----------
    n : int64 (n_properties,)
        Labelled sequences of each property.
    statistic, effect, p_value : float64 (n_features, n_properties)
        NaN where the test cannot be made: a constant feature or property among the labelled sequences.
    """

    __test__ = False  # not a test class, whatever its name suggests to pytest

    n: npt.NDArray[np.int64]
    statistic: FloatArray
    effect: FloatArray
    p_value: FloatArray


class _Part(NamedTuple):
    """One property's share of a block of vectors that have the same missing labels."""

    index: int
    estimator: str
    vectors: FloatArray
    sizes: FloatArray  # class sizes; for Spearman the sum of squares of the property's ranks


def as_sorted(features: Any) -> SortedColumns:
    """The features sorted once, whatever they came as."""
    return features if isinstance(features, SortedColumns) else sort_columns(features)


def associations(
    features: Any,
    properties: Sequence[Property],
    rows: Bool[np.ndarray, " n_sequences"] | None = None,
    design_effect: Float[np.ndarray, "n_features n_properties"] | None = None,
) -> Tests:
    """Test every feature against every property.

    Parameters
    ----------
    features : sparse (n_sequences, n_features) or SortedColumns
        Pooled codes. Pass ``SortedColumns`` to use one sort for several calls.
    properties : sequence of Property
        What to test against; missing labels are NaN, each property uses the sequences that carry its label.
    rows : bool (n_sequences,), optional
        Sequences that take part (a split); all by default.
    design_effect : float (n_features, n_properties), optional
        Discount of the p-values for relatives, from
        :func:`~helix_sae.statistics.design_effect.design_effects`; none by default.

    Returns
    -------
    Tests
    """
    columns = as_sorted(features)
    shape = (columns.n_columns, len(properties))
    n = np.zeros(len(properties), dtype=np.int64)
    statistic, effect, p_value = (np.full(shape, np.nan) for _ in range(3))
    inside = np.ones(columns.n_rows, dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
    groups = _by_missingness(properties, inside)
    parts = [[_part(index, properties[index], mask) for index in members] for mask, members in groups]
    ranked = [
        RankedRows(np.column_stack([part.vectors for part in of_group]), mask)
        for (mask, _), of_group in zip(groups, parts, strict=True)
    ]
    for of_group, result in zip(parts, grouped_rank_products(columns, ranked), strict=True):
        stop = 0
        for part in of_group:
            start, stop = stop, stop + part.vectors.shape[1]
            n[part.index] = result.n_rows
            discount = 1.0 if design_effect is None else design_effect[:, part.index]
            made = _TESTS[part.estimator](result, result.products[:, start:stop], part.sizes, discount)
            statistic[:, part.index], effect[:, part.index], p_value[:, part.index] = made
    return Tests(n, statistic, effect, p_value)


def _by_missingness(
    properties: Sequence[Property], inside: npt.NDArray[np.bool_]
) -> list[tuple[npt.NDArray[np.bool_], list[int]]]:
    """Properties grouped by which sequences they label, so that each group needs one walk over the features."""
    groups: dict[bytes, tuple[npt.NDArray[np.bool_], list[int]]] = {}
    for index, property_ in enumerate(properties):
        mask = inside & ~np.isnan(property_.values)
        groups.setdefault(np.packbits(mask).tobytes(), (mask, []))[1].append(index)
    return list(groups.values())


def _part(index: int, property_: Property, mask: npt.NDArray[np.bool_]) -> _Part:
    if property_.kind == "continuous":
        ranks = centred_ranks(property_.values, mask)
        return _Part(index, property_.estimator, ranks[:, None], np.array([np.square(ranks).sum()]))
    if property_.kind == "binary":
        first = (mask & (property_.values == 1)).astype(np.float64)
        return _Part(
            index, property_.estimator, first[:, None], np.array([mask.sum() - first.sum(), first.sum()])
        )
    codes = np.where(mask, property_.values, -1).astype(np.int64)
    present = np.unique(codes[codes >= 0])
    indicators = (codes[:, None] == present[None, :]).astype(np.float64)
    return _Part(index, property_.estimator, indicators, indicators.sum(axis=0))


def t_test(correlation: FloatArray, dof: float, discount: FloatArray | float = 1.0) -> FloatArray:
    """Two-sided p-value of a correlation by Student's t (t^2 over the discount); NaN without freedom."""
    if dof < 1:
        return np.full_like(correlation, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.clip(dof / ((correlation + 1.0) * (1.0 - correlation)), 0.0, None) / discount
        return 2.0 * special.stdtr(dof, -np.abs(correlation * np.sqrt(room)))


def _spearman(result: RankProducts, products: FloatArray, sizes: FloatArray, discount: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = products[:, 0] / np.sqrt(result.sum_of_squares() * sizes[0])
    rho[~np.isfinite(rho)] = np.nan
    rho = np.clip(rho, -1.0, 1.0)
    return rho, rho, t_test(rho, result.n_rows - 2, discount)


def _mann_whitney(result: RankProducts, products: FloatArray, sizes: FloatArray, discount: Any) -> Any:
    n0, n1 = sizes
    n = n0 + n1
    if n0 == 0 or n1 == 0:
        nothing = np.full(len(products), np.nan)
        return nothing, nothing, nothing
    u1 = products[:, 0] + result.zero_rank * n1 - n1 * (n1 + 1) / 2.0
    spread = np.sqrt(discount * n0 * n1 / 12.0 * ((n + 1) - result.tie_term / (n * (n - 1))))
    with np.errstate(divide="ignore"):
        z = (np.maximum(u1, n0 * n1 - u1) - n0 * n1 / 2.0 - 0.5) / spread
    p = np.clip(2.0 * special.ndtr(-z), 0.0, 1.0)
    return u1, 2.0 * u1 / (n0 * n1) - 1.0, p


def _kruskal_wallis(result: RankProducts, products: FloatArray, sizes: FloatArray, discount: Any) -> Any:
    n = float(result.n_rows)
    nothing = np.full(len(products), np.nan)
    if len(sizes) < 2:
        return nothing, nothing, nothing
    rank_sums = products + result.zero_rank[:, None] * sizes
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = 12.0 / (n * (n + 1)) * (rank_sums**2 / sizes).sum(axis=1) - 3.0 * (n + 1)
        h = raw / (1.0 - result.tie_term / (n**3 - n))
    h = np.where(result.tie_term >= n**3 - n, np.nan, h)
    return h, h / (n - 1.0), special.chdtrc(len(sizes) - 1, np.maximum(h, 0.0) / discount)


_TESTS = {"spearman": _spearman, "mann_whitney": _mann_whitney, "kruskal_wallis": _kruskal_wallis}


def spearman(features: Any, values: Float[np.ndarray, "n_sequences n_properties"]) -> Tests:
    """Spearman correlation of every feature with every column of values (NaN = missing)."""
    return associations(features, [Property(str(i), "other", "continuous", v) for i, v in _columns(values)])


def mann_whitney(features: Any, labels: Float[np.ndarray, "n_sequences n_properties"]) -> Tests:
    """Mann-Whitney U of every feature between the labels 0 and 1 of every column (NaN = missing)."""
    return associations(features, [Property(str(i), "other", "binary", v) for i, v in _columns(labels)])


def kruskal_wallis(features: Any, labels: Float[np.ndarray, "n_sequences n_properties"]) -> Tests:
    """Kruskal-Wallis H of every feature between the classes 0, 1, ... of every column (NaN = missing)."""
    return associations(features, [Property(str(i), "other", "categorical", v) for i, v in _columns(labels)])


def _columns(values: Any) -> list[tuple[int, FloatArray]]:
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    return [(i, np.ascontiguousarray(array[:, i])) for i in range(array.shape[1])]
