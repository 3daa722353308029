"""Nodes of the correlation pipeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_sae.pipelines.correlation.parameters import CorrelationParameters

if TYPE_CHECKING:
    from anndata import AnnData

LOGGER = logging.getLogger(__name__)

_CATEGORIES = ("functional_", "structural_", "regulatory_")


def associate_features(
    sequence_codes: dict[str, AnnData], table: pd.DataFrame, parameters: CorrelationParameters
) -> tuple[pd.DataFrame, ...]:
    """Test every alive feature of every site against every property, on discovery and again on validation clusters.

    Returns
    -------
    associations, significant_associations, best_matches, replication, by_source, warnings : DataFrame
    """
    from helix_sae.statistics.associate import associate

    rows = aligned_table(sequence_codes, table)
    tables = associate(
        mean_pooled(sequence_codes),
        rows,
        rows["split"],
        properties=tested_properties(rows, parameters),
        confounders=present_confounders(rows, parameters),
        alpha=parameters.alpha,
        correction=parameters.correction,
        min_labels=parameters.min_labels,
        min_active=parameters.min_active,
        n_resamples=parameters.n_resamples,
        seed=parameters.seed,
    )
    LOGGER.info(
        "%d associations significant at q <= %g, %d of them replicated on validation clusters",
        len(tables.significant), parameters.alpha, int(tables.significant["replicated"].sum()),
    )  # fmt: skip
    return (
        tables.associations,
        tables.significant,
        tables.best_matches,
        tables.validation,
        tables.by_source,
        tables.warnings,
    )


def calibrate_associations(
    sequence_codes: dict[str, AnnData], table: pd.DataFrame, parameters: CorrelationParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Repeat the tests with permuted labels: does the false discovery rate hold?

    Returns
    -------
    calibration, calibration_quantiles : DataFrame
        One row for each kind of test (raw, partial), and the quantiles for the QQ figure. Empty without permutations.
    """
    from helix_sae.statistics.associate import calibrate

    if parameters.n_permutations == 0:
        return pd.DataFrame(), pd.DataFrame()
    rows = aligned_table(sequence_codes, table)
    found = calibrate(
        mean_pooled(sequence_codes),
        rows,
        rows["split"],
        properties=tested_properties(rows, parameters),
        confounders=present_confounders(rows, parameters),
        alpha=parameters.alpha,
        correction=parameters.correction,
        min_labels=parameters.min_labels,
        min_active=parameters.min_active,
        n_permutations=parameters.n_permutations,
        seed=parameters.seed,
    )
    summary = pd.concat([c.summary.assign(test=name) for name, c in found.items()], ignore_index=True)
    quantiles = pd.concat([c.quantiles.assign(test=name) for name, c in found.items()], ignore_index=True)
    return summary, quantiles


def aligned_table(sequence_codes: dict[str, AnnData], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mRNA table that have codes, in the order of the codes."""
    first = next(iter(sequence_codes.values()))
    return table.set_index("sequence_id", drop=False).loc[list(first.obs_names)].reset_index(drop=True)


def mean_pooled(sequence_codes: dict[str, AnnData]) -> dict[str, Any]:
    """Mean-pooled codes by site."""
    return {site: codes.X for site, codes in sequence_codes.items()}


def tested_properties(table: pd.DataFrame, parameters: CorrelationParameters) -> list[str]:
    """Columns to test."""
    if parameters.properties is not None:
        return parameters.properties
    left_out = tuple(parameters.leave_out)
    return [c for c in table.columns if str(c).startswith(_CATEGORIES) and not str(c).startswith(left_out)]


def present_confounders(table: pd.DataFrame, parameters: CorrelationParameters) -> list[str]:
    """Confounders that vary: a single source confounds nothing."""
    return [name for name in parameters.confounders if name not in table.columns or table[name].nunique() > 1]
