"""Rank tests against scipy, to 1e-10, on sparse, tied, missing and constant data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats
from statistics_oracles import kruskal_pair, mann_whitney_pair, spearman_pair

from helix_sae.statistics.association import associations, kruskal_wallis, mann_whitney, spearman
from helix_sae.statistics.properties import Property
from helix_sae.statistics.ranks import sort_columns

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@st.composite
def data_sets(draw, n_classes=None):
    """Sparse tied features, some of them constant, and labels with gaps."""
    seed = draw(st.integers(0, 2**32 - 1))
    n = draw(st.integers(4, 60))
    rng = np.random.default_rng(seed)
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    decimals = draw(st.sampled_from([0, 1, 6]))
    features = np.round(rng.normal(size=(n, 3)), decimals) * (rng.random((n, 3)) < density)
    features[:, 2] = draw(st.sampled_from([0.0, 2.5]))
    if n_classes is None:
        labels = np.round(rng.normal(size=(n, 3)), decimals)
        labels[:, 2] = 1.0
    else:
        labels = rng.integers(0, n_classes, size=(n, 3)).astype(float)
    labels[rng.random((n, 3)) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    return features, labels


def compare(tests, features, labels, oracle):
    for j in range(features.shape[1]):
        for k in range(labels.shape[1]):
            expected = oracle(features[:, j], labels[:, k])
            found = tests.statistic[j, k], tests.p_value[j, k]
            np.testing.assert_allclose(found, expected, **TOLERANCE, err_msg=f"feature {j}, property {k}")


@given(data_sets())
def test_spearman_is_scipys(data):
    features, labels = data
    compare(spearman(sparse.csr_array(features), labels), features, labels, spearman_pair)


@given(data_sets(n_classes=2))
def test_mann_whitney_is_scipys(data):
    features, labels = data
    compare(mann_whitney(sparse.csr_array(features), labels), features, labels, mann_whitney_pair)


@given(data_sets(n_classes=4))
def test_kruskal_wallis_is_scipys(data):
    features, labels = data
    compare(kruskal_wallis(sparse.csr_array(features), labels), features, labels, kruskal_pair)


def test_large_data_stay_within_the_tolerance():
    rng = np.random.default_rng(1)
    n = 20_000
    features = np.where(rng.random((n, 4)) < 0.05, rng.gamma(2, size=(n, 4)), 0).astype(np.float32)
    labels = rng.normal(size=(n, 2)) + features[:, :1]
    labels[rng.random((n, 2)) < 0.2] = np.nan
    two = (labels > 0).astype(float)
    two[np.isnan(labels)] = np.nan
    compare(spearman(features, labels), features, labels, spearman_pair)
    compare(mann_whitney(features, two), features, two, mann_whitney_pair)


def test_signs_and_sizes_of_effects_are_known():
    features = np.array([[0.0], [0.0], [1.0], [2.0]])
    higher = np.array([0.0, 0.0, 1.0, 1.0])
    assert mann_whitney(features, higher).effect[0, 0] == 1.0
    assert mann_whitney(features, 1 - higher).effect[0, 0] == -1.0
    assert spearman(features, np.array([1.0, 1.0, 2.0, 3.0])).effect[0, 0] == pytest.approx(1.0)
    perfect = kruskal_wallis(np.repeat([[0.0], [1.0], [2.0]], 50, axis=0), np.repeat([0.0, 1.0, 2.0], 50))
    assert perfect.effect[0, 0] == pytest.approx(1.0)


def test_epsilon_squared_is_h_over_n_minus_one():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=90), rng.integers(0, 3, 90).astype(float)
    h = stats.kruskal(*[x[y == c] for c in range(3)]).statistic
    assert kruskal_wallis(x[:, None], y).effect[0, 0] == pytest.approx(h / 89)


def test_all_kinds_and_gaps_in_one_call_equal_single_calls():
    rng = np.random.default_rng(3)
    n = 200
    features = np.round(rng.normal(size=(n, 5)), 1) * (rng.random((n, 5)) < 0.4)
    continuous = rng.normal(size=n)
    continuous[:50] = np.nan
    binary = rng.integers(0, 2, n).astype(float)
    classes = rng.integers(0, 4, n).astype(float)
    classes[100:120] = np.nan
    properties = [
        Property("a", "functional", "continuous", continuous),
        Property("b", "functional", "binary", binary),
        Property("c", "structural", "categorical", classes),
    ]
    joint = associations(features, properties)
    assert joint.n.tolist() == [150, 200, 180]
    singles = [
        spearman(features, continuous),
        mann_whitney(features, binary),
        kruskal_wallis(features, classes),
    ]
    for k, single in enumerate(singles):
        np.testing.assert_array_equal(joint.p_value[:, k], single.p_value[:, 0])
        np.testing.assert_array_equal(joint.effect[:, k], single.effect[:, 0])


def test_rows_restrict_as_if_the_others_were_missing():
    rng = np.random.default_rng(4)
    features = np.round(rng.normal(size=(80, 3)), 1)
    values = rng.normal(size=80)
    rows = rng.random(80) < 0.5
    blanked = np.where(rows, values, np.nan)
    columns = sort_columns(features)
    by_rows = associations(columns, [Property("v", "other", "continuous", values)], rows)
    np.testing.assert_array_equal(by_rows.p_value, spearman(columns, blanked).p_value)


def test_one_class_left_gives_no_test():
    tests = mann_whitney(np.arange(6.0)[:, None], np.array([1, 1, 1, np.nan, np.nan, np.nan]))
    assert np.isnan(tests.effect).all()
    assert np.isnan(tests.p_value).all()


def test_a_design_effect_divides_the_chi_square():
    rng = np.random.default_rng(5)
    features, values = rng.normal(size=(300, 1)), rng.normal(size=300)
    values += 0.3 * features[:, 0]
    properties = [Property("v", "other", "continuous", values)]
    plain = associations(features, properties)
    discounted = associations(features, properties, None, np.array([[4.0]]))
    t = stats.t.isf(plain.p_value[0, 0] / 2, 298)
    assert discounted.p_value[0, 0] == pytest.approx(2 * stats.t.sf(t / 2, 298), rel=1e-9)
    assert discounted.effect[0, 0] == plain.effect[0, 0]
