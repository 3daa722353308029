"""From the columns of a table to what the tests can be made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from helix_sae.errors import ConfigurationError, DataError

Kind = Literal["continuous", "binary", "categorical"]
Estimator = Literal["spearman", "mann_whitney", "kruskal_wallis"]
CATEGORIES = ("functional", "structural", "regulatory")
_ESTIMATORS: dict[str, Estimator] = {
    "continuous": "spearman",
    "binary": "mann_whitney",
    "categorical": "kruskal_wallis",
}

WARNING_COLUMNS = ("property", "warning", "detail")


@dataclass(frozen=True)
class Property:
    """One labelled property of the sequences.

    Attributes
    ----------
    name : str
        Column of the table.
    category : str
        ``functional``, ``structural`` or ``regulatory`` (the prefix of the column), else ``other``.
    kind : {"continuous", "binary", "categorical"}
        Decides the estimator: Spearman, Mann-Whitney, Kruskal-Wallis.
    values : float64 (n_sequences,)
        The value, or for classes the code 0, 1, ...; NaN where the label is missing.
    classes : tuple of str
        Name of each code; empty for continuous properties. For binary properties the effect is positive when
        the feature is higher in ``classes[1]``.
    """

    name: str
    category: str
    kind: Kind
    values: npt.NDArray[np.float64]
    classes: tuple[str, ...] = ()

    @property
    def estimator(self) -> Estimator:
        """Name of the test."""
        return _ESTIMATORS[self.kind]


def category_of(column: str) -> str:
    """The prefix of a property's column when it is one of the three categories, else ``other``."""
    prefix = column.split("_", 1)[0]
    return prefix if prefix in CATEGORIES else "other"


def property_columns(table: pd.DataFrame) -> list[str]:
    """Columns that are properties by their prefix, in the table's order."""
    return [str(c) for c in table.columns if str(c).split("_", 1)[0] in CATEGORIES and "_" in str(c)]


def prepare_properties(
    table: pd.DataFrame,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    *,
    rows: npt.NDArray[np.bool_] | None = None,
    min_labels: int = 20,
    min_per_class: int = 5,
) -> tuple[list[Property], pd.DataFrame]:
    """Turn columns into properties and name those that cannot be tested.

    A column of numbers with exactly two distinct values is binary, any other column of numbers is
    continuous; booleans are binary; text and categories are binary or categorical by their number of classes.

    Parameters
    ----------
    table : DataFrame (n_sequences rows)
        The mRNA table.
    columns : sequence of str, optional
        Properties to test; by default all columns with a category prefix.
    kinds : mapping column -> kind, optional
        Overrules the guess.
    rows : bool (n_sequences,), optional
        Rows on which the property has to be testable (the discovery split); all by default.
    min_labels : int
        A property with fewer labels on ``rows`` is not tested.
    min_per_class : int
        Classes with fewer members on ``rows`` are left out (their labels become missing).

    Returns
    -------
    properties : list of Property
    warnings : DataFrame with columns ``property``, ``warning``, ``detail``
        One row for each property, or class, that was left out: ``all_missing``, ``too_few_labels``,
        ``constant``, ``class_too_small``.

    Raises
    ------
    DataError
        If a named column does not exist, or a continuous one holds infinite values.
    ConfigurationError
        If a kind is unknown or does not fit its column.
    """
    names = property_columns(table) if columns is None else list(columns)
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise DataError(
            f"The table has no column {', '.join(map(repr, absent))}; properties there are: "
            f"{', '.join(property_columns(table)) or 'none'}."
        )
    inside = np.ones(len(table), dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
    kinds = kinds or {}
    properties: list[Property] = []
    warnings: list[tuple[str, str, str]] = []
    for name in names:
        made = _prepare(table[name], name, kinds.get(name), inside, min_per_class, warnings)
        labelled = int((~np.isnan(made.values) & inside).sum())
        distinct = len(np.unique(made.values[inside & ~np.isnan(made.values)]))
        if labelled == 0:
            warnings.append((name, "all_missing", "no sequence has a label; not tested"))
        elif labelled < min_labels:
            warnings.append((name, "too_few_labels", f"{labelled} labels, {min_labels} needed; not tested"))
        elif distinct < 2:
            warnings.append((name, "constant", f"all {labelled} labels are the same; not tested"))
        else:
            properties.append(made)
    return properties, pd.DataFrame(warnings, columns=list(WARNING_COLUMNS))


def _prepare(
    column: pd.Series,
    name: str,
    kind: str | None,
    inside: npt.NDArray[np.bool_],
    min_per_class: int,
    warnings: list[tuple[str, str, str]],
) -> Property:
    if kind is not None and kind not in _ESTIMATORS:
        raise ConfigurationError(f"Property {name!r}: kind {kind!r} is none of {', '.join(_ESTIMATORS)}.")
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if kind == "continuous" and not numeric:
        raise ConfigurationError(f"Property {name!r} is declared continuous but does not hold numbers.")
    if numeric:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise DataError(f"Column {name!r} is infinite in row {infinite[0]}; use a missing value instead.")
        present = np.unique(values[~np.isnan(values)])
        if kind is None:
            kind = "binary" if len(present) == 2 else "continuous"
        if kind == "continuous":
            return Property(name, category_of(name), "continuous", values)
        labels: list[str] = [f"{v:g}" for v in present]
        codes = np.where(np.isnan(values), -1, np.searchsorted(present, values)).astype(np.int64)
    else:
        factor = pd.Categorical(column.astype("object").where(column.notna(), None))
        labels = [str(c) for c in factor.categories]
        codes = np.asarray(factor.codes, dtype=np.int64)
    return _classes(name, kind, codes, labels, inside, min_per_class, warnings)


def _classes(
    name: str,
    kind: str | None,
    codes: npt.NDArray[np.int64],
    labels: list[str],
    inside: npt.NDArray[np.bool_],
    min_per_class: int,
    warnings: list[tuple[str, str, str]],
) -> Property:
    """Leave out classes that are too small and number the others from zero."""
    sizes = np.bincount(codes[inside & (codes >= 0)], minlength=len(labels))
    kept = [c for c in range(len(labels)) if sizes[c] >= min_per_class]
    for c in range(len(labels)):
        if c not in kept and sizes[c] > 0:
            detail = (
                f"class {labels[c]!r} has {sizes[c]} members, {min_per_class} needed; its labels are left out"
            )
            warnings.append((name, "class_too_small", detail))
    if kind == "binary" and len(labels) > 2:
        raise ConfigurationError(f"Property {name!r} is declared binary but has {len(labels)} classes.")
    renumber = np.full(len(labels) + 1, np.nan)  # the last entry takes the code -1
    renumber[kept] = np.arange(len(kept))
    if kind is None:
        kind = "binary" if len(kept) <= 2 else "categorical"
    return Property(
        name,
        category_of(name),
        kind,  # pyright: ignore[reportArgumentType]
        renumber[codes],
        tuple(labels[c] for c in kept),  # pyright: ignore
    )
