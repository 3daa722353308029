"""Tails where both sides are sparse: against plain moments, permutations, and the exact hypergeometric distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from helix_sae.statistics.association import associations
from helix_sae.statistics.partial import prepare_covariates
from helix_sae.statistics.properties import Property
from helix_sae.statistics.skewness import corrected_tails, permutation_skewness


def plain_skewness(x: np.ndarray, y: np.ndarray) -> float:
    x, y = stats.rankdata(x), stats.rankdata(y)
    x, y, n = x - x.mean(), y - y.mean(), len(x)
    third = n * (x**3).sum() * (y**3).sum() / ((n - 1) * (n - 2))
    return float(third / ((x**2).sum() * (y**2).sum() / (n - 1)) ** 1.5)


def test_skewness_of_sparse_tied_signed_columns_with_gaps():
    rng = np.random.default_rng(0)
    n = 80
    features = np.round(rng.normal(size=(n, 5)), 1) * (rng.random((n, 5)) < [0.05, 0.2, 0.5, 1, 0])
    values = np.where(rng.random(n) < 0.2, rng.gamma(1, size=n), 0.0)
    values[rng.random(n) < 0.2] = np.nan
    two = (rng.random(n) < 0.1).astype(float)
    properties = [Property("a", "other", "continuous", values), Property("b", "other", "binary", two)]
    rows = rng.random(n) < 0.8
    found = permutation_skewness(sparse.csr_array(features), properties, rows)
    for j in range(4):
        for k, y in enumerate((values, two)):
            known = rows & ~np.isnan(y)
            assert found[j, k] == pytest.approx(plain_skewness(features[known, j], y[known]), abs=1e-12)
    assert (found[4] == 0).all(), "a silent feature has no tail"


def test_it_is_the_skewness_of_permutations():
    rng = np.random.default_rng(1)
    x, y = (rng.random(100) < 0.08).astype(float), (rng.random(100) < 0.1).astype(float)
    drawn = np.array([rng.permutation(x) @ y for _ in range(40_000)])
    assert plain_skewness(x, y) == pytest.approx(stats.skew(drawn), abs=0.05)


@pytest.mark.parametrize(("n_active", "n_class"), [(37, 234), (40, 60), (12, 300), (200, 400)])
def test_tails_follow_the_exact_distribution(n_active: int, n_class: int):
    """Of two binary columns the overlap is hypergeometric; the plain test is off by orders of magnitude."""
    n = 1348
    x, y = np.zeros(n), np.zeros(n)
    y[:n_class] = 1
    overlaps, exact, plain, mended = [], [], [], []
    for overlap in range(n_active + 1):
        p = float(stats.hypergeom.sf(overlap - 1, n, n_active, n_class))
        if not 1e-9 < p < 1e-4 or overlap > n_class:
            continue
        x[:] = 0
        x[:overlap] = 1
        x[n_class : n_class + n_active - overlap] = 1
        property_ = Property("y", "other", "continuous", y)
        tests = associations(sparse.csr_array(x[:, None]), [property_])
        skewness = permutation_skewness(sparse.csr_array(x[:, None]), [property_])
        overlaps.append(overlap)
        exact.append(p)
        plain.append(tests.p_value[0, 0])
        mended.append(corrected_tails(tests.p_value, tests.effect, skewness)[0, 0])
    assert len(overlaps) >= 3
    ratio = np.array(mended) / np.array(exact)
    said = list(zip(overlaps, exact, plain, mended, strict=True))
    assert ratio.min() > 0.5, said  # a tail that is too short is what makes false discoveries
    assert ratio.max() < 30, said
    assert np.abs(np.log10(ratio)).max() < np.abs(np.log10(np.array(plain) / np.array(exact))).max()


def test_nothing_changes_without_skewness_and_nothing_gets_smaller():
    rng = np.random.default_rng(2)
    p, effect = rng.random((30, 4)) ** 8, rng.normal(size=(30, 4))
    assert (corrected_tails(p, effect, np.zeros((30, 4))) == p).all()
    assert (corrected_tails(p, effect, rng.normal(size=(30, 4))) >= p).all()
    edge = np.array([np.nan, 0.0, 1.0, 1e-300])
    np.testing.assert_array_equal(corrected_tails(edge, np.ones(4), np.full(4, 0.5)), edge)


def test_both_tails_count():
    """A two-sided p-value is the sum of both tails, whichever the statistic lies in."""
    p = np.array([1e-3, 1e-3])
    heavy, light = corrected_tails(p, np.array([1.0, -1.0]), np.array([0.5, 0.5]))
    assert heavy == light
    assert 2e-3 < heavy < 1e-2


def test_classes_have_no_sign_and_confounders_take_part():
    import pandas as pd

    rng = np.random.default_rng(3)
    n = 200
    x = np.where(rng.random(n) < 0.1, rng.random(n), 0)
    gc = rng.random(n)
    classes = rng.integers(0, 3, n).astype(float)
    y = np.where(rng.random(n) < 0.1, 1.0, 0.0)
    properties = [
        Property("c", "other", "categorical", classes, ("a", "b", "c")),
        Property("y", "other", "binary", y),
    ]
    covariates = prepare_covariates(pd.DataFrame({"structural_gc_content": gc}), ["structural_gc_content"])
    raw = permutation_skewness(sparse.csr_array(x[:, None]), properties)
    held = permutation_skewness(sparse.csr_array(x[:, None]), properties, None, covariates, {})
    assert raw[0, 0] == held[0, 0] == 0
    assert raw[0, 1] > 0.2
    assert held[0, 1] == pytest.approx(raw[0, 1], rel=0.15)
