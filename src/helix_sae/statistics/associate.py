"""From pooled codes and a table of properties to associations that hold.

Discovery and validation are two sets of clusters. Everything that selects (dead features, tests, correction,
best match) sees the discovery set alone; the validation set is touched once, for what was selected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.statistics.association import Tests, associations
from helix_sae.statistics.multiple_testing import Calibration, Correction, adjust, permutation_calibration
from helix_sae.statistics.partial import DEFAULT_EXCLUSIONS
from helix_sae.statistics.properties import Kind, Property
from helix_sae.statistics.replication import replication_table, validate
from helix_sae.statistics.sources import combine_sources
from helix_sae.statistics.study import Study, discounted_tests, partial_tests, prepare_study, raw_tests

DEFAULT_CONFOUNDERS = ("structural_gc_content", "structural_length", "source")


class AssociationTables(NamedTuple):
    """Result of :func:`associate`, long form; every row names site, feature, property, estimator.

    Attributes
    ----------
    associations : DataFrame
        The whole declared family: one row a (site, alive feature, property) on the discovery set. ``site``,
        ``feature``, ``property``, ``category``, ``kind``, ``estimator``, ``n``, ``statistic``, ``effect``,
        ``p_value`` (sequences taken as independent, equal to scipy's), ``design_effect``,
        ``cluster_p_value`` (discounted for relatives, and with the tail of a skewed null where feature and
        property are both sparse, :mod:`helix_sae.statistics.skewness`; otherwise the same), ``q_value`` (of
        ``cluster_p_value``), ``partial_n``, ``partial_effect``, ``partial_p_value``, ``partial_q_value``,
        ``significant``, ``partial_significant``.
    significant : DataFrame
        Rows of ``associations`` with q <= alpha, by falling |effect|, joined with ``validation_n``,
        ``validation_effect``, ``validation_low``, ``validation_high``, ``interval_method``,
        ``validation_p_value`` (one-sided, in the direction found), ``validation_q_value``,
        ``validation_partial_effect``, ``validation_partial_p_value``, ``replicated``, ``partial_replicated``.
    masked : DataFrame
        The same columns, for associations that show only when the confounders are held fixed (partial q <=
        alpha, q above it), by falling |partial effect|: a confounder hides them. ``partial_replicated`` is
        their replication; ``replicated`` is False, ``validation_q_value`` missing.
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
    masked: pd.DataFrame
    best_matches: pd.DataFrame
    validation: pd.DataFrame
    by_source: pd.DataFrame
    warnings: pd.DataFrame
    summary: pd.DataFrame


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
    study = prepare_study(
        codes, table, split, properties, kinds, confounders, exclusions, min_labels, min_active
    )
    if not 0 < alpha < 1:
        raise ConfigurationError(f"alpha must lie between 0 and 1, not {alpha}.")
    family = pd.concat([_discover(study, site) for site in study.columns], ignore_index=True)
    family["q_value"] = adjust(family["cluster_p_value"], correction)
    family["partial_q_value"] = adjust(family["partial_p_value"], correction)
    family["significant"] = family["q_value"] <= alpha
    family["partial_significant"] = family["partial_q_value"] <= alpha
    carried = validate(
        _carried(family), study, alpha, correction, n_resamples, max_bootstrapped, confidence, seed
    )
    significant = carried[carried["significant"]].reset_index(drop=True)
    masked = carried[~carried["significant"]].reset_index(drop=True)
    return AssociationTables(
        associations=family,
        significant=significant,
        masked=masked,
        best_matches=_best_matches(significant),
        validation=replication_table(significant, confidence),
        by_source=combine_sources(
            significant, study, table["source"].to_numpy(dtype=object), min_labels, confidence
        ),
        warnings=study.warnings,
        summary=_summary(study, family, significant),
    )


def _carried(family: pd.DataFrame) -> pd.DataFrame:
    """What goes on to the validation clusters: the significant by falling |effect|, then what shows only in the partial test."""
    carried = family[family["significant"] | family["partial_significant"]]
    found = carried["significant"].to_numpy(dtype=bool)
    strength = np.where(found, carried["effect"].abs(), carried["partial_effect"].abs())
    order = np.lexsort((carried.index, -strength, ~found))
    return carried.iloc[order].reset_index(drop=True)


def _discover(study: Study, site: str) -> pd.DataFrame:
    columns, alive = study.columns[site], study.alive[site]
    scipy_like = associations(columns, study.properties, study.discovery)
    raw, design, partial = discounted_tests(study, site, study.discovery)
    return _long_form(site, alive, study.properties, scipy_like, raw, design, partial)


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


def _summary(study: Study, family: pd.DataFrame, significant: pd.DataFrame) -> pd.DataFrame:
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
    one source both permutations are the same. The p-values are those of ``cluster_p_value`` and
    ``partial_p_value`` but for the discount for relatives, of which permuted labels know nothing.

    Returns
    -------
    dict with the keys ``raw`` and ``partial``
    """
    study = prepare_study(
        codes, table, split, properties, kinds, confounders, exclusions, min_labels, min_active
    )
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

    def family(make: Callable[..., Tests]) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]:
        def p_values(order: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            labels = permuted(order)
            sites = {s: make(study, s, labels, study.discovery).p_value for s in study.columns}
            return np.concatenate([p[study.alive[s]].ravel() for s, p in sites.items()])

        return p_values

    families = {"raw": (family(raw_tests), np.zeros(len(rows))), "partial": (family(partial_tests), sources)}
    return {
        name: permutation_calibration(
            tests, strata, n_permutations=n_permutations, alpha=alpha, method=correction, seed=seed
        )
        for name, (tests, strata) in families.items()
    }
