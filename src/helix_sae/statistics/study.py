"""Codes, table and split brought together, checked, and made ready for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from helix_sae.errors import AnalysisError, DataError
from helix_sae.statistics.association import Tests, associations
from helix_sae.statistics.design_effect import design_effects
from helix_sae.statistics.partial import Covariate, partial_associations, prepare_covariates
from helix_sae.statistics.properties import WARNING_COLUMNS, Kind, Property, prepare_properties
from helix_sae.statistics.ranks import SortedColumns, rank_products, sort_columns
from helix_sae.statistics.skewness import corrected_tails, permutation_skewness

BoolArray = npt.NDArray[np.bool_]


class Study(NamedTuple):
    """What stays the same while the sites go by."""

    columns: dict[str, SortedColumns]
    alive: dict[str, npt.NDArray[np.int64]]
    properties: list[Property]
    covariates: list[Covariate]
    exclusions: Mapping[str, Sequence[str]]
    clusters: npt.NDArray[Any]
    discovery: BoolArray
    validation: BoolArray
    warnings: pd.DataFrame


def prepare_study(
    codes: Mapping[str, Any],
    table: pd.DataFrame,
    split: Any,
    names: Sequence[str] | None,
    kinds: Mapping[str, Kind] | None,
    confounders: Sequence[str],
    exclusions: Mapping[str, Sequence[str]],
    min_labels: int,
    min_active: int,
) -> Study:
    """Check that everything fits, prepare properties and confounders, sort the codes of each site once."""
    if not codes:
        raise DataError("There are no codes: name at least one site.")
    for required in ("cluster", "source"):
        if required not in table.columns:
            raise DataError(f"The table has no column {required!r}.")
    parts = np.asarray(split, dtype=object)
    if len(parts) != len(table):
        raise DataError(f"The split has {len(parts)} entries and the table {len(table)} rows.")
    discovery, validation = parts == "discovery", parts == "validation"
    for name, mask in (("discovery", discovery), ("validation", validation)):
        if not mask.any():
            raise AnalysisError(f"The split holds no sequence named {name!r}; its parts are {set(parts)}.")
    prepared, warnings = prepare_properties(table, names, kinds, rows=discovery, min_labels=min_labels)
    if not prepared:
        raise AnalysisError(_none_testable(warnings))
    present = [name for name in confounders if name in table.columns]
    lacking = [
        (c, "no_such_confounder", "not in the table; not held fixed") for c in confounders if c not in present
    ]
    covariates = prepare_covariates(table, present)
    covariates, unlabelled = _usable_covariates(covariates, discovery, min_labels)
    extra = pd.DataFrame([*lacking, *unlabelled], columns=list(WARNING_COLUMNS))
    warnings = pd.concat([warnings, extra], ignore_index=True)
    clusters = table["cluster"].to_numpy(dtype=object)
    columns: dict[str, SortedColumns] = {}
    alive: dict[str, npt.NDArray[np.int64]] = {}
    for site, matrix in codes.items():
        if matrix.shape[0] != len(table):
            raise DataError(
                f"Site {site!r} has codes of {matrix.shape[0]} sequences, the table {len(table)} rows."
            )
        columns[site] = sort_columns(matrix)
        alive[site] = alive_features(columns[site], discovery, min_active)
    return Study(columns, alive, prepared, covariates, exclusions, clusters, discovery, validation, warnings)


def _none_testable(warnings: pd.DataFrame) -> str:
    """Why no property can be tested: each reason once, with an example."""
    reasons: list[str] = []
    for reason, part in warnings.groupby("warning", sort=False):
        n, first = part["property"].nunique(), part.iloc[0]
        example = f"{first['property']}: {first['detail']}"
        reasons.append(f"{str(reason).replace('_', ' ')} ({n}, such as {example})")
    told = "; ".join(reasons) or "the table has none"
    return f"No property can be tested: {told}. Give more sequences with labels."


def _usable_covariates(
    covariates: list[Covariate], discovery: BoolArray, min_labels: int
) -> tuple[list[Covariate], list[tuple[str, str, str]]]:
    """Drop confounders that are missing nearly everywhere: they would empty every partial correlation."""
    kept: list[Covariate] = []
    dropped: list[tuple[str, str, str]] = []
    for covariate in covariates:
        known = int((discovery & ~np.isnan(covariate.values)).sum())
        if known >= min_labels:
            kept.append(covariate)
        else:
            dropped.append((covariate.name, "empty_confounder", f"{known} values; not held fixed"))
    return kept, dropped


def alive_features(columns: SortedColumns, rows: BoolArray, min_active: int) -> npt.NDArray[np.int64]:
    """Indices of the features that are active in at least ``min_active`` of the rows and not constant."""
    seen = np.concatenate([[0], np.cumsum(rows[columns.rows])])
    active = seen[columns.indptr[1:]] - seen[columns.indptr[:-1]]
    varies = rank_products(columns, np.zeros((columns.n_rows, 0)), rows).sum_of_squares() > 0
    return np.flatnonzero((active >= min_active) & varies)


def discounted_tests(
    study: Study, site: str, rows: BoolArray
) -> tuple[Tests, npt.NDArray[np.float64], Tests]:
    """Raw tests, their design effect, and partial tests: discounted for relatives, with the tails of a skewed null."""
    columns, properties, clusters = study.columns[site], study.properties, study.clusters
    held = (study.covariates, study.exclusions)
    design = design_effects(columns, properties, clusters, rows)
    partial_design = design_effects(columns, properties, clusters, rows, *held)
    return (
        raw_tests(study, site, properties, rows, design),
        design,
        partial_tests(study, site, properties, rows, partial_design),
    )


def raw_tests(
    study: Study,
    site: str,
    properties: Sequence[Property],
    rows: BoolArray,
    design: npt.NDArray[np.float64] | None = None,
) -> Tests:
    """Raw tests of a site; the p-values have the tails of a skewed null where both sides are sparse."""
    columns = study.columns[site]
    made = associations(columns, properties, rows, design)
    skewness = permutation_skewness(columns, properties, rows)
    return made._replace(p_value=corrected_tails(made.p_value, made.effect, skewness))


def partial_tests(
    study: Study,
    site: str,
    properties: Sequence[Property],
    rows: BoolArray,
    design: npt.NDArray[np.float64] | None = None,
) -> Tests:
    """The same with the confounders held fixed."""
    columns, held = study.columns[site], (study.covariates, study.exclusions)
    made = partial_associations(columns, properties, *held, rows, design)
    skewness = permutation_skewness(columns, properties, rows, *held)
    return made._replace(p_value=corrected_tails(made.p_value, made.effect, skewness))
