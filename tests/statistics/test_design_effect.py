"""Relatives are discounted; singletons are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statistics_oracles import design_effect_pair, residual

from helix_sae.statistics.association import associations
from helix_sae.statistics.design_effect import design_effects
from helix_sae.statistics.multiple_testing import inflation_factor
from helix_sae.statistics.partial import Covariate, partial_associations
from helix_sae.statistics.properties import Property
from helix_sae.statistics.ranks import sort_columns


def family_data(rng, n_families=80, size=6, n_features=150):
    """Features and labels that families share, independent of each other."""
    clusters = np.repeat(np.arange(n_families), size)
    x = np.repeat(rng.normal(size=(n_families, n_features)), size, axis=0)
    x = np.maximum(0, x + 0.3 * rng.normal(size=x.shape) - 0.5)
    y = np.repeat(rng.normal(size=n_families), size) + 0.3 * rng.normal(size=n_families * size)
    return clusters, x, y


def test_equals_its_definition():
    rng = np.random.default_rng(0)
    clusters, x, y = family_data(rng, 30, 4, 5)
    x[:, 1] -= 1.0  # values on both sides of zero
    found = design_effects(x, [Property("y", "other", "continuous", y)], clusters)
    expected = [design_effect_pair(x[:, j], y, clusters) for j in range(5)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-9)


def test_equals_its_definition_with_gaps_and_confounders():
    rng = np.random.default_rng(1)
    clusters, x, y = family_data(rng, 30, 4, 3)
    y[:9] = np.nan
    z = rng.normal(size=len(y))
    rows = rng.random(len(y)) < 0.8
    found = design_effects(
        x, [Property("y", "other", "continuous", y)], clusters, rows, [Covariate("z", z, False)]
    )
    mask = rows & ~np.isnan(y)
    covariate = stats.rankdata(z[mask])[:, None]
    f = residual(stats.rankdata(y[mask]), covariate)
    for j in range(3):
        u = residual(stats.rankdata(x[mask, j]), covariate) * f
        u = u - u.mean()
        sums = np.array([u[clusters[mask] == c].sum() for c in np.unique(clusters[mask])])
        n, k = len(u), len(sums)
        expected = (sums**2).sum() / (u**2).sum() * k / (k - 1) * (n - 1) / n
        assert found[j, 0] == pytest.approx(max(1, expected), rel=1e-9)


def test_singletons_change_nothing():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    assert (design_effects(x, [Property("y", "other", "continuous", y)], np.arange(50)) == 1).all()


@pytest.mark.parametrize("kind", ["continuous", "binary", "categorical"])
def test_families_no_longer_inflate(kind):
    rng = np.random.default_rng(3)
    clusters, x, y = family_data(rng)
    values = {
        "continuous": y,
        "binary": (y > 0).astype(float),
        "categorical": np.digitize(y, [-0.7, 0.7]).astype(float),
    }[kind]
    properties = [Property("y", "other", kind, values)]
    columns = sort_columns(x)
    plain = associations(columns, properties).p_value
    design = design_effects(columns, properties, clusters)
    discounted = associations(columns, properties, None, design).p_value
    assert inflation_factor(plain) > 2.5
    assert inflation_factor(discounted) < 1.5
    assert (discounted <= 0.05).mean() < 0.12
    assert (plain <= 0.05).mean() > 0.2


def test_partial_tests_are_discounted_too():
    rng = np.random.default_rng(4)
    clusters, x, y = family_data(rng)
    covariates = [Covariate("z", rng.normal(size=len(y)), False)]
    properties = [Property("y", "other", "continuous", y)]
    design = design_effects(x, properties, clusters, None, covariates)
    discounted = partial_associations(x, properties, covariates, {}, None, design)
    assert inflation_factor(discounted.p_value) < 1.5
