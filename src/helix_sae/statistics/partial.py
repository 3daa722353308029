"""Rank partial correlation: what is left of an association when confounders are held fixed.

The ranks of the feature and of the property are both regressed on the ranks of the confounders (and on
dummies of the source); the residuals are correlated. For a property of several classes the share of the
feature's residual rank variance that the classes explain is tested (Quade 1967, rank analysis of covariance).
With an orthonormal basis Q of the confounders and the property's residual e, everything is again a product of
sparse ranks r with dense vectors::

    partial = <r, e> / sqrt((|r|^2 - |Q'r|^2) |e|^2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Bool, Float
from scipy import special, stats

from helix_sae.errors import DataError
from helix_sae.statistics.association import Tests, as_sorted, associations, t_test
from helix_sae.statistics.properties import Property
from helix_sae.statistics.ranks import RankProducts, SortedColumns, centred_ranks, rank_products

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_GC = (
    "structural_gc_content",
    "structural_gc_5utr",
    "structural_gc_cds",
    "structural_gc_3utr",
    "structural_gc3",
)
_LENGTH = ("structural_length", "structural_length_5utr", "structural_length_cds", "structural_length_3utr")

DEFAULT_EXCLUSIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {**dict.fromkeys(_GC, _GC), **dict.fromkeys(_LENGTH, _LENGTH)}
)
"""Confounders that a property must not be conditioned on, because they are (part of) its definition: a GC
content given another GC content, a length given another length. A property is never conditioned on itself."""

_COLLINEAR = 1e-9  # residual share of variance below which a vector counts as explained


class Covariate(NamedTuple):
    """A confounder: numbers (to be ranked) or classes (to become dummies)."""

    name: str
    values: FloatArray  # float64 (n_sequences,), NaN missing; class codes for classes
    classes: bool


def prepare_covariates(table: pd.DataFrame, names: Sequence[str]) -> list[Covariate]:
    """Columns of the table as covariates; text, booleans and categories become classes.

    Raises
    ------
    DataError
        If a column does not exist.
    """
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise DataError(
            f"The table has no confounder column {', '.join(map(repr, absent))}; its columns are: "
            f"{', '.join(map(str, table.columns))}."
        )
    covariates: list[Covariate] = []
    for name in names:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            covariates.append(Covariate(name, values, False))
        else:
            codes = pd.factorize(column, sort=True)[0].astype(np.float64)
            covariates.append(Covariate(name, np.where(codes < 0, np.nan, codes), True))
    return covariates


def confounders_of(
    property_: str, names: Sequence[str], exclusions: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The confounders a property may be conditioned on: neither itself nor its own definition."""
    barred = {property_, *exclusions.get(property_, ())}
    return tuple(name for name in names if name not in barred)


def partial_associations(
    features: Any,
    properties: Sequence[Property],
    covariates: Sequence[Covariate],
    exclusions: Mapping[str, Sequence[str]] = DEFAULT_EXCLUSIONS,
    rows: Bool[np.ndarray, " n_sequences"] | None = None,
    design_effect: Float[np.ndarray, "n_features n_properties"] | None = None,
) -> Tests:
    """Rank partial correlation of every feature with every property.

    Parameters
    ----------
    features : sparse (n_sequences, n_features) or SortedColumns
        Pooled codes.
    properties : sequence of Property
        A continuous or binary property gives a signed partial correlation (effect = statistic, Student's t
        with n - 2 - rank(confounders) degrees of freedom); one of several classes gives partial eta squared
        (effect) with its F (statistic).
    covariates : sequence of Covariate
        Confounders. Sequences that lack one are left out of the properties that use it.
    exclusions : mapping property -> covariates
        Covariates that are (part of) the property's own definition.
    rows : bool (n_sequences,), optional
        Sequences that take part; all by default.
    design_effect : float (n_features, n_properties), optional
        Discount of the p-values for relatives.

    Returns
    -------
    Tests
        NaN where the feature or the property is explained by the confounders altogether.
    """
    columns = as_sorted(features)
    inside = np.ones(columns.n_rows, dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
    n = np.zeros(len(properties), dtype=np.int64)
    shape = (columns.n_columns, len(properties))
    statistic, effect, p_value = (np.full(shape, np.nan) for _ in range(3))

    for mask, used, members in group_by_sample(properties, covariates, exclusions, inside):
        n[members] = int(mask.sum())
        basis = covariate_basis(used, mask)
        targets = [residual_vectors(properties[index], mask, basis) for index in members]
        result = rank_products(columns, np.column_stack([basis, *targets]), mask)
        left = _unexplained(result, result.products[:, : basis.shape[1]])
        stop = basis.shape[1]
        for index, target in zip(members, targets, strict=True):
            start, stop = stop, stop + target.shape[1]
            made = _test(
                result,
                result.products[:, start:stop],
                left,
                basis.shape[1],
                properties[index].kind,
                1.0 if design_effect is None else design_effect[:, index],
            )
            statistic[:, index], effect[:, index], p_value[:, index] = made
    return Tests(n, statistic, effect, p_value)


def group_by_sample(
    properties: Sequence[Property],
    covariates: Sequence[Covariate],
    exclusions: Mapping[str, Sequence[str]],
    inside: BoolArray,
) -> list[tuple[BoolArray, list[Covariate], list[int]]]:
    """Properties that share their sequences and confounders, so that each group needs one walk.

    Returns
    -------
    list of (rows that take part, confounders, indices of the properties)
    """
    by_name = {covariate.name: covariate for covariate in covariates}
    groups: dict[tuple[bytes, tuple[str, ...]], tuple[BoolArray, list[Covariate], list[int]]] = {}
    for index, property_ in enumerate(properties):
        used = confounders_of(property_.name, list(by_name), exclusions)
        mask = inside & ~np.isnan(property_.values)
        for name in used:
            mask &= ~np.isnan(by_name[name].values)
        key = (np.packbits(mask).tobytes(), used)
        groups.setdefault(key, (mask, [by_name[name] for name in used], []))[2].append(index)
    return list(groups.values())


def covariate_basis(
    covariates: Sequence[Covariate], mask: Bool[np.ndarray, " n_sequences"]
) -> Float[np.ndarray, "n_sequences rank"]:
    """Orthonormal basis of the centred confounders on ``mask``; zero outside. Redundant ones drop out."""
    vectors: list[FloatArray] = []
    for covariate in covariates:
        if covariate.classes:
            codes = np.where(mask, covariate.values, np.nan)
            for code in np.unique(codes[mask])[1:]:
                vectors.append(_centred((codes == code).astype(np.float64), mask))
        else:
            vectors.append(centred_ranks(covariate.values, mask))
    scaled = [v / np.linalg.norm(v) for v in vectors if np.linalg.norm(v) > 0]
    if not scaled:
        return np.zeros((len(mask), 0))
    left, singular, _ = np.linalg.svd(np.column_stack(scaled), full_matrices=False)
    return np.ascontiguousarray(left[:, singular > 1e-7 * singular[0]])


def _centred(values: FloatArray, mask: BoolArray) -> FloatArray:
    return np.where(mask, values - values[mask].mean(), 0.0)


def residual_vectors(property_: Property, mask: BoolArray, basis: FloatArray) -> FloatArray:
    """Orthonormal vectors of the property given the confounders; none when they explain it altogether."""
    if property_.kind == "continuous":
        vectors = centred_ranks(property_.values, mask)[:, None]
    else:
        codes = np.where(mask, property_.values, np.nan)
        present = np.unique(codes[mask])[1:]
        vectors = np.column_stack(
            [np.zeros((len(mask), 0)), *[_centred((codes == c).astype(np.float64), mask) for c in present]]
        )
    residual = vectors - basis @ (basis.T @ vectors)
    total = np.linalg.norm(vectors, axis=0)
    kept = np.linalg.norm(residual, axis=0) ** 2 > _COLLINEAR * total**2
    residual = residual[:, kept & (total > 0)]
    if residual.shape[1] <= 1:
        return residual / np.linalg.norm(residual, axis=0)
    left, singular, _ = np.linalg.svd(residual, full_matrices=False)
    return np.ascontiguousarray(left[:, singular > 1e-7 * singular[0]])


def _unexplained(result: RankProducts, on_basis: FloatArray) -> FloatArray:
    """Sum of squares of each feature's ranks that the confounders leave; NaN when they leave nothing."""
    total = result.sum_of_squares()
    left = total - (on_basis**2).sum(axis=1)
    return np.where(left > _COLLINEAR * np.maximum(total, 1.0), left, np.nan)


def _test(
    result: RankProducts,
    products: FloatArray,
    left: FloatArray,
    n_confounders: int,
    kind: str,
    discount: FloatArray | float,
) -> Any:
    if products.shape[1] == 0:
        nothing = np.full(len(left), np.nan)
        return nothing, nothing, nothing
    dof = result.n_rows - 1 - n_confounders - products.shape[1]
    if kind != "categorical":
        partial = np.clip(products[:, 0] / np.sqrt(left), -1.0, 1.0)
        return partial, partial, t_test(partial, dof, discount)
    explained = np.clip((products**2).sum(axis=1) / left, 0.0, 1.0)
    if dof < 1:
        nothing = np.full(len(left), np.nan)
        return nothing, explained, nothing
    with np.errstate(divide="ignore"):
        f = explained / products.shape[1] / ((1.0 - explained) / dof)
    return f, explained, special.fdtrc(products.shape[1], dof, f / discount)


def partial_correlation_table(
    values: pd.DataFrame, target: str, covariates: Sequence[Covariate]
) -> pd.DataFrame:
    """Raw and partial rank correlation of whole columns with a target: the same measure without features.

    Parameters
    ----------
    values : DataFrame
        Numeric columns; ``target`` is one of them.
    target : str
        The phenotype.
    covariates : sequence of Covariate
        Confounders, aligned with ``values``.

    Returns
    -------
    DataFrame with columns ``property``, ``n``, ``raw``, ``raw_p``, ``partial``, ``partial_p``
    """
    goal = Property(target, "other", "continuous", values[target].to_numpy(dtype=np.float64, na_value=np.nan))
    rows: list[dict[str, Any]] = []
    for name in values.columns:
        if name == target:
            continue
        column = values[name].to_numpy(dtype=np.float64, na_value=np.nan)
        mask = ~np.isnan(column)
        feature: SortedColumns = as_sorted(
            np.where(mask, stats.rankdata(column, nan_policy="omit"), 0)[:, None]
        )
        used = [c for c in covariates if c.name not in (name, target)]
        raw = associations(feature, [goal], mask)
        partial = partial_associations(feature, [goal], used, {}, mask)
        rows.append(
            {
                "property": name,
                "n": int(raw.n[0]),
                "raw": float(raw.effect[0, 0]),
                "raw_p": float(raw.p_value[0, 0]),
                "partial": float(partial.effect[0, 0]),
                "partial_p": float(partial.p_value[0, 0]),
            }
        )
    return pd.DataFrame(rows)
