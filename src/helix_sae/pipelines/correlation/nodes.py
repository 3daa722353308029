"""Nodes of the correlation pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.names import feature_name
from helix_sae.pipelines.correlation.parameters import CorrelationParameters

if TYPE_CHECKING:
    from anndata import AnnData

    from helix_sae.sae.codes import SiteCodes
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    AnnData = SiteCodes = Any

LOGGER = logging.getLogger(__name__)

_CATEGORIES = ("functional_", "structural_", "regulatory_")


def associate_features(
    sequence_codes: dict[str, AnnData], table: pd.DataFrame, parameters: CorrelationParameters
) -> tuple[pd.DataFrame, ...]:
    """Test every alive feature of every site against every property, on discovery and again on validation clusters.

    Returns
    -------
    associations, significant_associations, masked_associations, best_matches, validation, by_source,
    warnings,
    summary : DataFrame
    """
    from helix_sae.statistics.associate import associate

    rows = aligned_table(sequence_codes, table)
    tables = associate(
        mean_pooled(sequence_codes, parameters),
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
        with_certified(tables.significant, sequence_codes),
        tables.masked,
        tables.best_matches,
        tables.validation,
        tables.by_source,
        tables.warnings,
        tables.summary,
    )


def calibrate_associations(
    sequence_codes: dict[str, AnnData], table: pd.DataFrame, parameters: CorrelationParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Repeat the tests with permuted labels, to see whether the false discovery rate holds.

    Returns
    -------
    calibration, calibration_quantiles : DataFrame
        One row for each kind of test (raw, partial), and the quantiles for the QQ figure. Empty without
        permutations.
    """
    from helix_sae.statistics.associate import calibrate

    if parameters.n_permutations == 0:
        return pd.DataFrame(columns=list(_CALIBRATION)), pd.DataFrame(columns=list(_QUANTILES))
    rows = aligned_table(sequence_codes, table)
    found = calibrate(
        mean_pooled(sequence_codes, parameters),
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


_CALIBRATION = (
    *("n_permutations", "n_tests", "correction", "alpha", "inflation_factor", "share_with_discovery"),
    *("standard_error", "share_p_below_alpha", "test"),
)
_QUANTILES = ("expected", "observed", "permuted", "permuted_low", "permuted_high", "test")


def rank_hierarchy(
    significant: pd.DataFrame, best_matches: pd.DataFrame, summary: pd.DataFrame
) -> pd.DataFrame:
    """Share of the alive features of each site by category of biology."""
    from helix_sae.statistics.hierarchy import feature_hierarchy

    return feature_hierarchy(significant, best_matches, summary)


def validate_top(
    sequence_codes: dict[str, AnnData],
    table: pd.DataFrame,
    best_matches: pd.DataFrame,
    parameters: CorrelationParameters,
) -> pd.DataFrame:
    """Set validation sequences on which a top feature is high beside those on which it is low."""
    from helix_sae.statistics.high_low import high_low_validation

    rows = aligned_table(sequence_codes, table)
    leading = best_matches[best_matches["rank_within_property"] <= parameters.top_features]
    return high_low_validation(
        mean_pooled(sequence_codes, parameters),
        rows,
        rows["split"],
        leading,
        n_resamples=parameters.n_resamples,
        seed=parameters.seed,
    )


def profile_landmarks(
    sparse_codes: Mapping[str, SiteCodes], table: pd.DataFrame, concept_matches: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean activation around start and stop codons, of the features that match coding concepts best.

    Returns
    -------
    metagene_profiles : DataFrame
        ``landmark, site, feature, name, position, mean, standard_error, n_sequences``.
    metagene_periodicity : DataFrame
        Three-nucleotide periodicity on either side of each landmark: ``landmark, side, site, feature, name,
        n_positions, share, p_value, phase``.
    """
    from helix_sae.statistics.metagene import metagene_profile, periodicity_by_side

    rows = table.set_index("sequence_id")
    profiles: list[pd.DataFrame] = []
    periods: list[pd.DataFrame] = []
    for site, concept, feature in _profiled(concept_matches):
        codes = sparse_codes[site]
        nucleotides = codes.columns([feature]).tocsr()[codes.is_nucleotide]
        per_sequence = np.add.reduceat(codes.is_nucleotide.astype(np.int64), codes.offsets[:-1])
        offsets = np.concatenate([[0], np.cumsum(per_sequence)])
        part = rows.loc[list(codes.sequence_id)]
        whole = per_sequence == part["sequence"].str.len().to_numpy()
        for landmark, column, shift in (("start codon", "cds_start", 0), ("stop codon", "cds_end", -3)):
            anchors = (part[column] + shift).fillna(-1).to_numpy(dtype=np.int64)
            anchors = np.where(whole, anchors, -1)
            reached = (anchors >= 0) & (
                anchors < per_sequence
            )  # a bare 5'UTR ends where its start codon would be
            if reached.any():
                named = {"landmark": landmark, "site": site, "name": _profile_name(concept, site, feature)}
                profile = metagene_profile(nucleotides, anchors, offsets, np.array([0])).assign(
                    feature=feature
                )
                profiles.append(profile.assign(**named))
                periods.append(periodicity_by_side(profile).assign(**named))
    return _stacked(profiles, _PROFILE), _stacked(periods, _PERIODICITY)


_PROFILE = ("landmark", "site", "feature", "name", "position", "mean", "standard_error", "n_sequences")
_PERIODICITY = (
    *("landmark", "side", "site", "feature", "name"),
    *("n_positions", "share", "p_value", "phase"),
)


def _profile_name(concept: str, site: str, feature: int) -> str:
    return f"{concept.replace('_', ' ')}: {feature_name(site, feature)}"


def _stacked(parts: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    """The parts as one table; the columns alone where there are none."""
    if not parts:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(parts, ignore_index=True)[list(columns)]


def draw(
    associations: pd.DataFrame,
    best_matches: pd.DataFrame,
    hierarchy: pd.DataFrame,
    calibration: pd.DataFrame,
    quantiles: pd.DataFrame,
    parameters: CorrelationParameters,
) -> tuple[Any, ...]:
    """Volcano, heatmap, layer profile and QQ: each for paper (PNG) and for the browser (plotly)."""
    from helix_sae.figures import heatmap, layer_profile, qq, volcano

    return (
        volcano.volcano(associations, alpha=parameters.alpha),
        volcano.volcano_interactive(associations, alpha=parameters.alpha),
        heatmap.association_heatmap(associations, best_matches, alpha=parameters.alpha),
        heatmap.association_heatmap_interactive(associations, best_matches, alpha=parameters.alpha),
        layer_profile.layer_profile(hierarchy),
        layer_profile.layer_profile_interactive(hierarchy),
        qq.qq(_by_test(quantiles), _by_test(calibration)),
        qq.qq_interactive(_by_test(quantiles)),
    )


def draw_profiles(profiles: pd.DataFrame, periods: pd.DataFrame) -> tuple[Any, Any]:
    """Activation around start and stop codons, for paper and for the browser."""
    from helix_sae.figures.metagene import from_tables, metagene, metagene_interactive

    given = from_tables(profiles, periods)
    return metagene(*given), metagene_interactive(*given)


_PROFILED = ("codon_pos_1", "codon_pos_3", "start_codon", "cds", "utr3")


def _profiled(matches: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Site, concept and feature of the best match of some concepts, over all sites; each feature once."""
    chosen: dict[tuple[str, int], str] = {}
    best = matches[matches["concept"].isin(_PROFILED)].sort_values(
        "discovery_f1", ascending=False, kind="stable"
    )
    for row in best.drop_duplicates("concept").itertuples(index=False):
        chosen.setdefault((str(row.site), int(row.feature)), str(row.concept))  # type: ignore[arg-type]
    return [(site, concept, feature) for (site, feature), concept in chosen.items()]


def _by_test(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {} if table.empty else {str(name): part for name, part in table.groupby("test", sort=False)}


def aligned_table(sequence_codes: dict[str, AnnData], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mRNA table that have codes, in the order of the codes."""
    first = next(iter(sequence_codes.values()))
    return table.set_index("sequence_id", drop=False).loc[list(first.obs_names)].reset_index(drop=True)


def mean_pooled(sequence_codes: dict[str, AnnData], parameters: CorrelationParameters) -> dict[str, Any]:
    """Mean-pooled codes by site; those of certified features alone where these are asked for."""
    return asked_for({site: codes.X for site, codes in sequence_codes.items()}, sequence_codes, parameters)


def asked_for(
    codes: dict[str, Any], sequence_codes: dict[str, AnnData], parameters: CorrelationParameters
) -> dict[str, Any]:
    """The codes, features in columns; where certified features alone are asked for, the others are never active.

    Raises
    ------
    AnalysisError
        If certified features are asked for and none is.
    """
    if not parameters.certified_only:
        return codes
    import scipy.sparse

    from helix_sae.sae.restricted import certified_masks

    masks = certified_masks({site: of_site.var for site, of_site in sequence_codes.items()})
    silenced = {
        site: rows @ scipy.sparse.diags_array(masks[site].astype(rows.dtype)) for site, rows in codes.items()
    }
    kept = {site: scipy.sparse.csr_array(rows) for site, rows in silenced.items()}
    for rows in kept.values():
        rows.eliminate_zeros()
    return kept


def with_certified(found: pd.DataFrame, sequence_codes: dict[str, AnnData]) -> pd.DataFrame:
    """What was found of some features, with their stability beside it; as it is where the codes do not tell."""
    from helix_sae.sae.stability import join_certified

    told = [codes.var.assign(site=site) for site, codes in sequence_codes.items() if "certified" in codes.var]
    if not told:
        return found
    return join_certified(
        found, pd.concat(told, ignore_index=True)[["site", "feature", "stability", "certified"]]
    )


def tested_properties(table: pd.DataFrame, parameters: CorrelationParameters) -> list[str]:
    """Columns to test."""
    if parameters.properties is not None:
        return parameters.properties
    left_out = tuple(parameters.leave_out)
    return [c for c in table.columns if str(c).startswith(_CATEGORIES) and not str(c).startswith(left_out)]


def present_confounders(table: pd.DataFrame, parameters: CorrelationParameters) -> list[str]:
    """Confounders that vary: a single source confounds nothing."""
    return [name for name in parameters.confounders if name not in table.columns or table[name].nunique() > 1]
