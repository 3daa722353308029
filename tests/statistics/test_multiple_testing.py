"""False discovery rate, and its calibration by permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helix_sae.errors import AnalysisError
from helix_sae.statistics.association import spearman
from helix_sae.statistics.multiple_testing import (
    adjust,
    inflation_factor,
    permutation_calibration,
    permute_within,
)
from helix_sae.statistics.ranks import sort_columns


@given(hnp.arrays(float, st.integers(1, 40), elements=st.floats(0, 1)))
def test_benjamini_hochberg_by_its_definition(p):
    order = np.argsort(p)
    n = len(p)
    expected = np.empty(n)
    running = 1.0
    for rank in range(n, 0, -1):
        running = min(running, p[order[rank - 1]] * n / rank)
        expected[order[rank - 1]] = running
    np.testing.assert_allclose(adjust(p), expected, atol=1e-12)
    harmonic = (1 / np.arange(1, n + 1)).sum()
    assert (adjust(p, "by") >= adjust(p) - 1e-12).all()
    assert adjust(p, "by").min() == pytest.approx(min(1, adjust(p).min() * harmonic))


def test_tests_that_could_not_be_made_are_no_members_of_the_family():
    p = np.array([[0.01, np.nan], [0.04, 0.03]])
    q = adjust(p)
    assert np.isnan(q[0, 1])
    np.testing.assert_allclose(q[~np.isnan(p)], adjust([0.01, 0.04, 0.03]))
    assert np.isnan(adjust([np.nan, np.nan])).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 5))
def test_permutations_stay_within_their_stratum(strata, seed):
    strata = np.asarray(strata)
    order = permute_within(strata, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(strata)))
    np.testing.assert_array_equal(strata[order], strata)


def test_permutations_are_uniform_within_a_stratum():
    rng = np.random.default_rng(0)
    draws = np.array([permute_within(np.array([0, 0, 0, 1]), rng)[0] for _ in range(3000)])
    np.testing.assert_allclose(np.bincount(draws, minlength=4) / 3000, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.04)


def test_inflation_of_uniform_p_values_is_one():
    p = (np.arange(10_000) + 0.5) / 10_000
    assert inflation_factor(p) == pytest.approx(1.0, abs=1e-3)
    assert inflation_factor(p**2) > 2
    assert np.isnan(inflation_factor([np.nan]))


def null_family(n=200, n_features=60, seed=0):
    rng = np.random.default_rng(seed)
    columns = sort_columns(np.where(rng.random((n, n_features)) < 0.2, rng.gamma(2, size=(n, n_features)), 0))
    values = rng.normal(size=(n, 3))
    return lambda order: spearman(columns, values[order]).p_value


def test_false_discovery_is_controlled_under_permuted_labels():
    found = permutation_calibration(null_family(), np.zeros(200), n_permutations=200, seed=1)
    summary = found.summary.iloc[0]
    assert summary["share_with_discovery"] <= 0.08
    assert summary["inflation_factor"] == pytest.approx(1.0, abs=0.1)
    assert summary["n_tests"] == 180
    curve = found.quantiles
    assert (curve["permuted_low"] <= curve["permuted"]).all()
    assert (curve["permuted"] <= curve["permuted_high"]).all()
    middle = curve[curve["expected"] < 1.3]
    np.testing.assert_allclose(middle["permuted"], middle["expected"], atol=0.12)


def test_a_broken_test_is_found_out():
    broken = null_family()
    found = permutation_calibration(lambda order: broken(order) ** 3, np.zeros(200), n_permutations=40)
    assert found.summary.iloc[0]["share_with_discovery"] > 0.5
    assert found.summary.iloc[0]["inflation_factor"] > 2


def test_the_same_seed_gives_the_same_calibration():
    first = permutation_calibration(null_family(), np.zeros(200), n_permutations=20, seed=4)
    second = permutation_calibration(null_family(), np.zeros(200), n_permutations=20, seed=4)
    assert first.permutations.equals(second.permutations)


def test_too_few_permutations_are_refused():
    with pytest.raises(AnalysisError, match="at least 20"):
        permutation_calibration(null_family(), np.zeros(200), n_permutations=5)
