"""From pooled codes and a table of properties to associations that hold.

Discovery and validation are two sets of clusters. Everything that selects (dead features, tests, correction,
best match) sees the discovery set alone; the validation set is touched once, for what was selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from helix_sae.errors import AnalysisError, ConfigurationError, DataError
from helix_sae.statistics.association import Tests, associations
from helix_sae.statistics.bootstrap import (
    bootstrap_effects,
    fisher_z_interval,
    random_effects,
    rank_biserial_error,
    replication_rate,
)
from helix_sae.statistics.design_effect import design_effects
from helix_sae.statistics.multiple_testing import Calibration, Correction, adjust, permutation_calibration
from helix_sae.statistics.partial import (
    DEFAULT_EXCLUSIONS,
    Covariate,
    partial_associations,
    prepare_covariates,
)
from helix_sae.statistics.properties import WARNING_COLUMNS, Kind, Property, prepare_properties
from helix_sae.statistics.ranks import SortedColumns, rank_products, sort_columns

BoolArray = npt.NDArray[np.bool_]
_NEARLY_ONE = 1 - 1e-6  # correlations are kept this far inside (-1, 1) on Fisher's z scale
DEFAULT_CONFOUNDERS = ("structural_gc_content", "structural_length", "source")


class AssociationTables(NamedTuple):
    """Result of :func:`associate`, long form; every row names site, feature, property, estimator.

    Attributes
    ----------
    associations : DataFrame
        The whole declared family: one row a (site, alive feature, property) on the discovery set. ``site``,
        ``feature``, ``property``, ``category``, ``kind``, ``estimator``, ``n``, ``statistic``, ``effect``,
        ``p_value`` (sequences taken as independent, equal to scipy's), ``design_effect``,
        ``cluster_p_value`` (discounted for relatives; the same where each cluster is one sequence),
        ``q_value`` (of ``cluster_p_value``), ``partial_n``, ``partial_effect``, ``partial_p_value``, ``partial_q_value``,
        ``significant``, ``partial_significant``.
    significant : DataFrame
        Rows of ``associations`` with q <= alpha, by falling |effect|, joined with ``validation_n``,
        ``validation_effect``, ``validation_low``, ``validation_high``, ``interval_method``,
        ``validation_p_value`` (one-sided, in the direction found), ``validation_q_value``,
        ``validation_partial_effect``, ``validation_partial_p_value``, ``replicated``, ``partial_replicated``.
    best_matches : DataFrame
        For every (site, feature) with a significant association the property of the largest discovery effect
        (partial where there is one), with ``rank_within_property`` (1 = strongest feature of that property
        over all sites).
    validation : DataFrame
        Replication by ``site``, ``category`` and ``property`` (and over ``all``): ``n_significant``,
        ``n_replicated``, ``replication_rate`` with its interval, ``median_effect``,
        ``median_validation_effect``.
    by_source : DataFrame
        Random-effects combination over sources of the significant associations; empty with one source.
    warnings : DataFrame
        ``property``, ``warning``, ``detail``: what was left out and why.
    summary : DataFrame, one row a site
        ``n_features``, ``n_alive``, ``n_tests``, ``n_significant``, ``n_partial_significant``,
        ``n_features_significant``, ``n_replicated``.
    """

    associations: pd.DataFrame
    significant: pd.DataFrame
    best_matches: pd.DataFrame
    validation: pd.DataFrame
    by_source: pd.DataFrame
    warnings: pd.DataFrame
    summary: pd.DataFrame


class _Study(NamedTuple):
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


def associate(
    codes: Mapping[str, Any],
    table: pd.DataFrame,
    split: Any,
    *,
    properties: Sequence[str] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    confounders: Sequence[str] = DEFAULT_CONFOUNDERS,
    exclusions: Mapping[str, Sequence[str]] = DEFAULT_EXCLUSIONS,
    alpha: float = 0.05,
    correction: Correction = "bh",
    min_labels: int = 20,
    min_active: int = 5,
    n_resamples: int = 2000,
    max_bootstrapped: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> AssociationTables:
    """Associate the features of every site with the properties of the sequences.

    Parameters
    ----------
    codes : mapping site -> sparse (n_sequences, n_features)
        Mean-pooled codes, one row a row of ``table``.
    table : DataFrame (n_sequences rows)
        The mRNA table; needs the properties, the confounders, ``cluster`` and ``source``.
    split : Series or array of str (n_sequences,)
        ``discovery`` or ``validation`` (any other part is left alone), from
        :func:`~helix_sae.statistics.splits.split_by_cluster`.
    properties : sequence of str, optional
        Columns to test; by default all with a category prefix.
    kinds : mapping column -> {"continuous", "binary", "categorical"}, optional
        Overrules the guess of the kind.
    confounders : sequence of str
        Held fixed in the partial correlation. Those that the table lacks are named in the warnings.
    exclusions : mapping property -> confounders
        Confounders that define the property and so must not be held fixed for it.
    alpha : float
        Level of the false discovery rate over all alive features x properties x sites.
    correction : {"bh", "by"}
    min_labels : int
        Properties with fewer labels on the discovery set are not tested.
    min_active : int
        A feature active in fewer sequences of the discovery set is dead and leaves before testing.
    n_resamples : int
        Cluster-bootstrap resamples of the validation intervals; at least 2,000.
    max_bootstrapped : int
        So many of the strongest significant associations get a bootstrap interval; the rest a closed form
        with the number of clusters for n (``interval_method`` says which).
    confidence : float
    seed : int

    Returns
    -------
    AssociationTables

    Raises
    ------
    DataError
        If codes and table do not fit, or a named column does not exist.
    AnalysisError
        If a split is empty or no property can be tested.
    """
    study = _prepare(codes, table, split, properties, kinds, confounders, exclusions, min_labels, min_active)
    if not 0 < alpha < 1:
        raise ConfigurationError(f"alpha must lie between 0 and 1, not {alpha}.")
    family = pd.concat([_discover(study, site) for site in study.columns], ignore_index=True)
    family["q_value"] = adjust(family["cluster_p_value"], correction)
    family["partial_q_value"] = adjust(family["partial_p_value"], correction)
    family["significant"] = family["q_value"] <= alpha
    family["partial_significant"] = family["partial_q_value"] <= alpha
    significant = family[family["significant"]].copy()
    order = np.lexsort((significant.index, -significant["effect"].abs()))
    significant = significant.iloc[order].reset_index(drop=True)
    significant = _validate(
        significant, study, alpha, correction, n_resamples, max_bootstrapped, confidence, seed
    )
    return AssociationTables(
        associations=family,
        significant=significant,
        best_matches=_best_matches(significant),
        validation=_replication(significant, confidence),
        by_source=_by_source(
            significant, study, table["source"].to_numpy(dtype=object), min_labels, confidence
        ),
        warnings=study.warnings,
        summary=_summary(study, family, significant),
    )


def _prepare(
    codes: Mapping[str, Any],
    table: pd.DataFrame,
    split: Any,
    names: Sequence[str] | None,
    kinds: Mapping[str, Kind] | None,
    confounders: Sequence[str],
    exclusions: Mapping[str, Sequence[str]],
    min_labels: int,
    min_active: int,
) -> _Study:
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
        raise AnalysisError(f"No property can be tested:\n{warnings.to_string(index=False)}")
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
    return _Study(columns, alive, prepared, covariates, exclusions, clusters, discovery, validation, warnings)


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


def _discover(study: _Study, site: str) -> pd.DataFrame:
    columns, alive = study.columns[site], study.alive[site]
    scipy_like = associations(columns, study.properties, study.discovery)
    raw, design, partial = _tests(study, site, study.discovery)
    return _long_form(site, alive, study.properties, scipy_like, raw, design, partial)


def _tests(study: _Study, site: str, rows: BoolArray) -> tuple[Tests, npt.NDArray[np.float64], Tests]:
    """Raw tests, their design effect, and partial tests, all discounted for relatives."""
    columns, properties, clusters = study.columns[site], study.properties, study.clusters
    design = design_effects(columns, properties, clusters, rows)
    raw = associations(columns, properties, rows, design)
    held = (study.covariates, study.exclusions)
    partial_design = design_effects(columns, properties, clusters, rows, *held)
    return raw, design, partial_associations(columns, properties, *held, rows, partial_design)


def _long_form(
    site: str,
    alive: npt.NDArray[np.int64],
    properties: list[Property],
    plain: Tests,
    raw: Tests,
    design: npt.NDArray[np.float64],
    partial: Tests,
) -> pd.DataFrame:
    n_features, n_properties = len(alive), len(properties)

    def tiled(values: list[Any]) -> Any:
        return pd.Categorical.from_codes(
            np.tile(pd.factorize(np.asarray(values, dtype=object))[0], n_features),
            categories=list(dict.fromkeys(values)),
        )

    frame = pd.DataFrame(
        {
            "site": np.full(n_features * n_properties, site, dtype=object),
            "feature": np.repeat(alive, n_properties),
            "property": tiled([p.name for p in properties]),
            "category": tiled([p.category for p in properties]),
            "kind": tiled([p.kind for p in properties]),
            "estimator": tiled([p.estimator for p in properties]),
            "n": np.tile(raw.n, n_features),
            "statistic": raw.statistic[alive].ravel(),
            "effect": raw.effect[alive].ravel(),
            "p_value": plain.p_value[alive].ravel(),
            "design_effect": design[alive].ravel(),
            "cluster_p_value": raw.p_value[alive].ravel(),
            "q_value": np.nan,
            "partial_n": np.tile(partial.n, n_features),
            "partial_effect": partial.effect[alive].ravel(),
            "partial_p_value": partial.p_value[alive].ravel(),
            "partial_q_value": np.nan,
        }
    )
    text = ["property", "category", "kind", "estimator"]
    return frame.astype(dict.fromkeys(text, "object"))


def _validate(
    significant: pd.DataFrame,
    study: _Study,
    alpha: float,
    correction: Correction,
    n_resamples: int,
    max_bootstrapped: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Estimates, intervals and replication on the validation set, for what the discovery set selected."""
    index_of = {p.name: i for i, p in enumerate(study.properties)}
    position = significant["property"].map(index_of).to_numpy(dtype=np.int64, na_value=0)
    feature = significant["feature"].to_numpy(dtype=np.int64)
    new = {
        name: np.full(len(significant), np.nan)
        for name in ("n", "effect", "low", "high", "p_value", "q_value", "partial_effect", "partial_p_value")
    }
    method = np.full(len(significant), "closed_form", dtype=object)
    for site in study.columns:
        at = np.flatnonzero(significant["site"].to_numpy() == site)
        if not len(at):
            continue
        raw, _, partial = _tests(study, site, study.validation)
        f, p = feature[at], position[at]
        new["n"][at] = raw.n[p]
        new["effect"][at], new["p_value"][at] = raw.effect[f, p], raw.p_value[f, p]
        new["partial_effect"][at], new["partial_p_value"][at] = partial.effect[f, p], partial.p_value[f, p]
        for k, property_ in enumerate(study.properties):
            here = at[p == k]
            if not len(here):
                continue
            low, high = _closed_form(
                property_, new["effect"][here], study.validation, study.clusters, confidence
            )
            new["low"][here], new["high"][here] = low, high
            strongest = here[here < max_bootstrapped]  # rows are ordered by falling |effect|
            if len(strongest):
                intervals = bootstrap_effects(
                    study.columns[site],
                    feature[strongest],
                    property_,
                    study.clusters,
                    rows=study.validation,
                    n_resamples=n_resamples,
                    confidence=confidence,
                    seed=seed,
                )
                new["low"][strongest], new["high"][strongest] = intervals[:, 0], intervals[:, 1]
                method[strongest] = "cluster_bootstrap"
    signed = significant["kind"].to_numpy() != "categorical"
    for prefix in ("", "partial_"):
        same_sign = np.sign(new[f"{prefix}effect"]) == np.sign(significant[f"{prefix}effect"].to_numpy())
        one_sided = np.where(same_sign, new[f"{prefix}p_value"] / 2, 1 - new[f"{prefix}p_value"] / 2)
        new[f"{prefix}p_value"] = np.where(signed, one_sided, new[f"{prefix}p_value"])
    new["q_value"] = adjust(new["p_value"], correction)
    excludes_zero = np.where(signed, (new["low"] > 0) | (new["high"] < 0), True)
    for name, values in new.items():
        significant[f"validation_{name}"] = values
    significant["interval_method"] = method
    significant["replicated"] = (new["q_value"] <= alpha) & excludes_zero
    partial_q = adjust(
        np.where(significant["partial_significant"], new["partial_p_value"], np.nan), correction
    )
    significant["partial_replicated"] = partial_q <= alpha
    return significant


def _closed_form(
    property_: Property,
    effect: npt.NDArray[np.float64],
    rows: BoolArray,
    clusters: npt.NDArray[Any],
    confidence: float,
) -> tuple[Any, Any]:
    """Interval with the number of clusters in place of the number of sequences: conservative for families."""
    mask = rows & ~np.isnan(property_.values)
    n, n_clusters = int(mask.sum()), len(pd.unique(clusters[mask]))
    if property_.kind == "continuous":
        return fisher_z_interval(effect, n_clusters, confidence)
    if property_.kind == "binary":
        ones = int((property_.values[mask] == 1).sum())
        shrink = n_clusters / max(n, 1)
        error = rank_biserial_error(effect, (n - ones) * shrink, ones * shrink)
        bounded = np.clip(effect, -_NEARLY_ONE, _NEARLY_ONE)
        half = special.ndtri(0.5 + confidence / 2) * error / (1 - bounded**2)
        return np.tanh(np.arctanh(bounded) - half), np.tanh(np.arctanh(bounded) + half)
    return np.full(len(effect), np.nan), np.full(len(effect), np.nan)


def _best_matches(significant: pd.DataFrame) -> pd.DataFrame:
    """One row a feature: its property of largest discovery effect, so that validation stays unbiased."""
    strength = significant["partial_effect"].abs().where(significant["partial_significant"])
    frame = significant.assign(
        _partial=strength.notna(), _strength=strength.fillna(significant["effect"].abs())
    )
    frame = frame.sort_values(
        ["site", "feature", "_partial", "_strength", "property"], ascending=[True, True, False, False, True]
    )
    best = frame.drop_duplicates(["site", "feature"], keep="first").copy()
    best = best.sort_values(
        ["property", "_partial", "_strength", "site", "feature"], ascending=[True, False, False, True, True]
    )
    best["rank_within_property"] = best.groupby("property", sort=False).cumcount() + 1
    return best.drop(columns=["_partial", "_strength"]).reset_index(drop=True)


def _replication(significant: pd.DataFrame, confidence: float) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    groups: list[tuple[tuple[str, str, str], pd.DataFrame]] = [(("all", "all", "all"), significant)]
    groups += [((s, "all", "all"), g) for s, g in significant.groupby("site", sort=False)]
    groups += [(("all", c, p), g) for (c, p), g in significant.groupby(["category", "property"], sort=True)]
    groups += [(k, g) for k, g in significant.groupby(["site", "category", "property"], sort=False)]
    for (site, category, name), group in groups:
        rate, low, high = replication_rate(group["replicated"].to_numpy(dtype=bool), confidence)
        rows.append(
            {
                "site": site,
                "category": category,
                "property": name,
                "n_significant": len(group),
                "n_replicated": int(group["replicated"].sum()),
                "replication_rate": rate,
                "rate_low": low,
                "rate_high": high,
                "median_effect": float(group["effect"].abs().median()),
                "median_validation_effect": float(
                    (group["validation_effect"] * np.sign(group["effect"])).median()
                ),
            }
        )
    return pd.DataFrame(rows)


def _by_source(
    significant: pd.DataFrame,
    study: _Study,
    sources: npt.NDArray[Any],
    min_labels: int,
    confidence: float,
) -> pd.DataFrame:
    """Effects within each source (discovery and validation together), combined by random effects."""
    names = [s for s in pd.unique(sources) if not pd.isna(s)]
    columns = ["site", "feature", "property", "category", "estimator"]
    chosen = significant[significant["kind"] != "categorical"].reset_index(drop=True)
    head = chosen[columns].copy()
    position = (
        chosen["property"].map({p.name: i for i, p in enumerate(study.properties)}).to_numpy(dtype=np.int64)
    )
    feature = chosen["feature"].to_numpy(dtype=np.int64)
    effects = np.full((len(names), len(chosen)), np.nan)
    errors = np.full((len(names), len(chosen)), np.nan)
    discount = chosen["design_effect"].to_numpy(dtype=np.float64)
    taken = study.discovery | study.validation
    for s, source in enumerate(names if len(names) > 1 else []):
        rows = taken & (sources == source)
        for site in study.columns:
            at = np.flatnonzero(chosen["site"].to_numpy() == site)
            tests = associations(study.columns[site], study.properties, rows)
            effect = np.clip(tests.effect[feature[at], position[at]], -_NEARLY_ONE, _NEARLY_ONE)
            error = _standard_errors(effect, study.properties, rows)[position[at], np.arange(len(at))]
            enough = tests.n[position[at]] >= min_labels
            effects[s, at] = np.where(enough, np.arctanh(effect), np.nan)
            errors[s, at] = np.where(enough, error * np.sqrt(discount[at]), np.nan)
    combined = random_effects(effects, errors, confidence)
    head["n_sources"] = combined.n_sources
    for name, z in (("effect", combined.effect), ("low", combined.low), ("high", combined.high)):
        head[f"combined_{name}"] = np.tanh(z)
    head["combined_p_value"] = combined.p_value
    head["tau_squared"] = combined.tau_squared
    head["i_squared"] = combined.i_squared
    for s, source in enumerate(names):
        head[f"effect[{source}]"] = np.tanh(effects[s])
    return head[head["n_sources"] >= 2].reset_index(drop=True)


def _standard_errors(
    effect: npt.NDArray[np.float64], properties: list[Property], rows: BoolArray
) -> npt.NDArray[np.float64]:
    """Standard error of each effect on Fisher's z scale, for each property; (n_properties, n_effects)."""
    errors = np.full((len(properties), len(effect)), np.nan)
    for k, property_ in enumerate(properties):
        mask = rows & ~np.isnan(property_.values)
        n = int(mask.sum())
        if property_.kind == "continuous" and n > 3:
            errors[k] = np.sqrt((1 + effect**2 / 2) / (n - 3))
        elif property_.kind == "binary":
            ones = int((property_.values[mask] == 1).sum())
            if 0 < ones < n:
                errors[k] = rank_biserial_error(effect, n - ones, ones) / (1 - effect**2)
    return errors


def _summary(study: _Study, family: pd.DataFrame, significant: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for site, columns in study.columns.items():
        tested = family[family["site"] == site]
        found = significant[significant["site"] == site]
        rows.append(
            {
                "site": site,
                "n_features": columns.n_columns,
                "n_alive": len(study.alive[site]),
                "n_tests": int(tested["p_value"].notna().sum()),
                "n_significant": len(found),
                "n_partial_significant": int(tested["partial_significant"].sum()),
                "n_features_significant": int(found["feature"].nunique()),
                "n_replicated": int(found["replicated"].sum()),
            }
        )
    return pd.DataFrame(rows)


def calibrate(
    codes: Mapping[str, Any],
    table: pd.DataFrame,
    split: Any,
    *,
    properties: Sequence[str] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    confounders: Sequence[str] = DEFAULT_CONFOUNDERS,
    exclusions: Mapping[str, Sequence[str]] = DEFAULT_EXCLUSIONS,
    alpha: float = 0.05,
    correction: Correction = "bh",
    min_labels: int = 20,
    min_active: int = 5,
    n_permutations: int = 200,
    seed: int = 0,
) -> dict[str, Calibration]:
    """Repeat the whole family of :func:`associate` on the discovery set with permuted labels.

    Labels (all properties of a sequence together) move to another sequence of the same source. The raw tests
    know nothing of the source: where sources differ in features and in labels they rightly find that even
    within-source permutation leaves an association. So two families are calibrated: ``raw`` with labels
    permuted over all sequences, and ``partial`` (source held fixed) with labels permuted within source. With
    one source both permutations are the same.

    Returns
    -------
    dict with the keys ``raw`` and ``partial``
    """
    study = _prepare(codes, table, split, properties, kinds, confounders, exclusions, min_labels, min_active)
    rows = np.flatnonzero(study.discovery)
    sources = table["source"].to_numpy(dtype=object)[rows]

    def permuted(order: npt.NDArray[np.int64]) -> list[Property]:
        moved: list[Property] = []
        for property_ in study.properties:
            values = np.full_like(property_.values, np.nan)
            values[rows] = property_.values[rows[order]]
            moved.append(
                Property(property_.name, property_.category, property_.kind, values, property_.classes)
            )
        return moved

    def raw(order: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        labels = permuted(order)
        return np.concatenate(
            [
                associations(study.columns[s], labels, study.discovery).p_value[study.alive[s]].ravel()
                for s in study.columns
            ]
        )

    def partial(order: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        labels = permuted(order)
        return np.concatenate(
            [
                partial_associations(
                    study.columns[s], labels, study.covariates, study.exclusions, study.discovery
                )
                .p_value[study.alive[s]]
                .ravel()
                for s in study.columns
            ]
        )

    families = {"raw": (raw, np.zeros(len(rows))), "partial": (partial, sources)}
    return {
        name: permutation_calibration(
            tests, strata, n_permutations=n_permutations, alpha=alpha, method=correction, seed=seed
        )
        for name, (tests, strata) in families.items()
    }
