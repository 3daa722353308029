"""Rank partial correlation against plain regression of ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statistics_oracles import partial_pair

from helix_sae.errors import DataError
from helix_sae.statistics.association import spearman
from helix_sae.statistics.partial import (
    confounders_of,
    partial_associations,
    partial_correlation_table,
    prepare_covariates,
)
from helix_sae.statistics.properties import Property


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    n = 300
    gc = rng.normal(size=n)
    return pd.DataFrame(
        {
            "structural_gc_content": gc,
            "structural_length": np.round(rng.lognormal(size=n), 1),
            "source": rng.choice(["a", "b", "c"], n),
            "functional_mrl": gc + rng.normal(size=n),
        }
    )


@pytest.fixture
def features(table):
    rng = np.random.default_rng(1)
    gc = table["structural_gc_content"].to_numpy()
    return np.column_stack([np.maximum(0, gc + rng.normal(size=len(gc))), rng.gamma(1, size=len(gc)), gc])


def continuous(name, values):
    return Property(name, "functional", "continuous", np.asarray(values, dtype=float))


def ranked_design(table, mask):
    inside = table[mask]
    dummies = pd.get_dummies(inside["source"]).to_numpy(dtype=float)[:, 1:]
    return np.column_stack(
        [
            stats.rankdata(inside["structural_gc_content"]),
            stats.rankdata(inside["structural_length"]),
            dummies,
        ]
    )


def test_partial_correlation_is_that_of_rank_residuals(table, features):
    values = table["functional_mrl"].to_numpy().copy()
    values[:40] = np.nan
    covariates = prepare_covariates(table, ["structural_gc_content", "structural_length", "source"])
    tests = partial_associations(features, [continuous("functional_mrl", values)], covariates, {})
    mask = ~np.isnan(values)
    design = ranked_design(table, mask)
    for j in range(2):
        expected = partial_pair(features[mask, j], values[mask], design)
        np.testing.assert_allclose([tests.effect[j, 0], tests.p_value[j, 0]], expected, rtol=1e-8, atol=1e-12)
    assert tests.n[0] == mask.sum()


def test_a_feature_that_is_its_confounder_has_no_partial_correlation(table, features):
    covariates = prepare_covariates(table, ["structural_gc_content"])
    tests = partial_associations(
        features, [continuous("functional_mrl", table["functional_mrl"])], covariates
    )
    assert np.isnan(tests.effect[2, 0])
    assert np.isnan(tests.p_value[2, 0])


def test_sequences_without_a_confounder_are_left_out(table, features):
    table.loc[:99, "structural_length"] = np.nan
    covariates = prepare_covariates(table, ["structural_length"])
    tests = partial_associations(
        features, [continuous("functional_mrl", table["functional_mrl"])], covariates
    )
    assert tests.n[0] == 200


def test_without_confounders_it_is_spearman(table, features):
    values = table["functional_mrl"].to_numpy()
    tests = partial_associations(features, [continuous("functional_mrl", values)], [])
    plain = spearman(features, values)
    np.testing.assert_allclose(tests.effect[:, 0], plain.effect[:, 0], rtol=1e-10)
    np.testing.assert_allclose(tests.p_value[:, 0], plain.p_value[:, 0], rtol=1e-8)


def test_classes_are_tested_by_analysis_of_covariance_of_ranks(table, features):
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 4, len(table)).astype(float)
    property_ = Property("regulatory_class", "regulatory", "categorical", codes, ("a", "b", "c", "d"))
    covariates = prepare_covariates(table, ["structural_gc_content", "source"])
    tests = partial_associations(features, [property_], covariates, {})
    frame = pd.DataFrame(
        {
            "x": stats.rankdata(features[:, 1]),
            "gc": stats.rankdata(table["structural_gc_content"]),
            "source": table["source"],
            "cls": codes.astype(int),
        }
    )
    full = smf.ols("x ~ gc + C(source) + C(cls)", frame).fit()
    reduced = smf.ols("x ~ gc + C(source)", frame).fit()
    f, p, _ = full.compare_f_test(reduced)
    np.testing.assert_allclose([tests.statistic[1, 0], tests.p_value[1, 0]], [f, p], rtol=1e-8)
    assert tests.effect[1, 0] == pytest.approx((reduced.ssr - full.ssr) / reduced.ssr)


def test_a_property_is_never_conditioned_on_itself_or_its_definition():
    names = ["structural_gc_content", "structural_length", "source"]
    exclusions = {"structural_gc_5utr": ("structural_gc_content",)}
    assert confounders_of("structural_gc_content", names, {}) == ("structural_length", "source")
    assert confounders_of("structural_gc_5utr", names, exclusions) == ("structural_length", "source")
    assert confounders_of("functional_mrl", names, exclusions) == tuple(names)


def test_gc_only_decoys_lose_their_association(table):
    rng = np.random.default_rng(5)
    gc = table["structural_gc_content"]
    table["structural_decoy"] = gc + 0.5 * rng.normal(size=len(gc))
    table["functional_mrl"] = gc + 0.5 * rng.normal(size=len(gc))
    values = table[["structural_decoy", "functional_mrl"]]
    row = partial_correlation_table(
        values, "functional_mrl", prepare_covariates(table, ["structural_gc_content"])
    )
    raw, partial = row.loc[0, "raw"], row.loc[0, "partial"]
    assert raw > 0.5
    assert abs(partial) < 0.2 * abs(raw)


def test_redundant_confounders_do_no_harm(table, features):
    values = continuous("functional_mrl", table["functional_mrl"])
    once = prepare_covariates(table, ["structural_gc_content", "source"])
    table["again"] = 3 * table["structural_gc_content"] + 1
    table["constant"] = 1.0
    twice = prepare_covariates(table, ["structural_gc_content", "source", "again", "constant"])
    first = partial_associations(features, [values], once)
    second = partial_associations(features, [values], twice)
    np.testing.assert_allclose(first.effect[:2], second.effect[:2], rtol=1e-8)
    np.testing.assert_allclose(first.p_value[:2], second.p_value[:2], rtol=1e-6)


def test_an_absent_confounder_is_named(table):
    with pytest.raises(DataError, match="no confounder column 'nonsense'"):
        prepare_covariates(table, ["nonsense"])
