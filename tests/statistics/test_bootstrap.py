"""Cluster bootstrap, sign flips, closed forms and random effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from helix_sae.errors import AnalysisError
from helix_sae.statistics.bootstrap import (
    bootstrap_effects,
    cluster_bootstrap,
    cluster_bootstrap_mean,
    cluster_weights,
    fisher_z_interval,
    random_effects,
    rank_biserial_error,
    replication_rate,
    sign_flip_test,
)
from helix_sae.statistics.properties import Property


def families(n_clusters, size, rng):
    return np.repeat(np.arange(n_clusters), size), np.repeat(rng.normal(size=n_clusters), size)


def test_interval_of_a_mean_is_wide_enough_for_families():
    rng = np.random.default_rng(0)
    clusters, effect = families(40, 10, rng)
    values = effect + 0.1 * rng.normal(size=400)
    whole = cluster_bootstrap_mean(values, clusters, seed=1)
    single = cluster_bootstrap_mean(values, np.arange(400), seed=1)
    assert whole.high - whole.low > 2.5 * (single.high - single.low)
    assert whole.n_clusters == 40
    assert whole.low < whole.estimate < whole.high
    assert whole.standard_error == pytest.approx(effect[::10].std() / np.sqrt(40), rel=0.15)


def test_the_general_bootstrap_agrees_with_the_product():
    rng = np.random.default_rng(1)
    clusters, effect = families(30, 3, rng)
    values = effect + rng.normal(size=90)
    slow = cluster_bootstrap(lambda rows: float(values[rows].mean()), clusters, seed=2)
    fast = cluster_bootstrap_mean(values, clusters, seed=3)
    assert slow.estimate == pytest.approx(fast.estimate)
    assert [slow.low, slow.high] == pytest.approx([fast.low, fast.high], abs=0.08)
    assert slow == cluster_bootstrap(lambda rows: float(values[rows].mean()), clusters, seed=2)


def test_coverage_of_the_mean_is_near_nominal():
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(150):
        clusters, effect = families(40, 3, rng)
        interval = cluster_bootstrap_mean(effect + rng.normal(size=120), clusters, seed=seed)
        covered += interval.low <= 0 <= interval.high
    assert 0.88 <= covered / 150 <= 0.99


def test_one_cluster_has_no_interval():
    interval = cluster_bootstrap_mean(np.arange(5.0), ["a"] * 5)
    assert interval.estimate == 2
    assert np.isnan(interval.low)
    assert np.isnan(cluster_bootstrap(lambda rows: 1.0, ["a"] * 5).high)


def test_too_few_resamples_and_no_values_are_refused():
    with pytest.raises(AnalysisError, match="2000"):
        cluster_bootstrap_mean(np.arange(5.0), np.arange(5), n_resamples=100)
    with pytest.raises(AnalysisError, match="missing"):
        cluster_bootstrap_mean(np.full(3, np.nan), np.arange(3))


def test_sign_flips_are_exact_when_few():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert sign_flip_test(values, np.arange(4)) == pytest.approx(2 / 16)
    assert sign_flip_test(values, np.arange(4), alternative="greater") == pytest.approx(1 / 16)
    assert sign_flip_test(values, np.arange(4), alternative="less") == 1.0
    assert sign_flip_test(values, np.zeros(4)) == 1.0, "one family gives no evidence"
    assert np.isnan(sign_flip_test(np.array([np.nan]), np.array([0])))


def test_random_sign_flips_respect_families_and_the_null():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), 5)
    p = [sign_flip_test(np.repeat(rng.normal(size=60), 5), clusters, n_flips=400, seed=s) for s in range(200)]
    assert np.mean(np.array(p) <= 0.05) <= 0.10
    shifted = np.repeat(rng.normal(size=60) + 1, 5)
    assert sign_flip_test(shifted, clusters, n_flips=2000) < 0.01
    assert sign_flip_test(shifted, clusters, n_flips=2000, alternative="less") > 0.9


@pytest.mark.parametrize("kind", ["continuous", "binary", "categorical"])
def test_rank_effects_are_ranked_anew_in_every_resample(kind):
    rng = np.random.default_rng(4)
    n = 90
    clusters = rng.integers(0, 25, n)
    features = np.round(rng.normal(size=(n, 3)), 1) * (rng.random((n, 3)) < 0.5)
    values = {
        "continuous": np.round(features[:, 0] + rng.normal(size=n), 1),
        "binary": (features[:, 0] + rng.normal(size=n) > 0).astype(float),
        "categorical": rng.integers(0, 3, n).astype(float),
    }[kind]
    values[:7] = np.nan
    property_ = Property("p", "other", kind, values)
    rows = rng.random(n) < 0.9
    found = bootstrap_effects(features, np.array([0, 2]), property_, clusters, rows=rows, seed=5)

    inside = np.flatnonzero(rows & ~np.isnan(values))
    codes, _ = pd.factorize(clusters[inside].astype(object))
    weights = cluster_weights(codes, 2000, np.random.default_rng(5))[codes]
    for pair, feature in enumerate([0, 2]):
        effects = []
        for b in range(2000):
            drawn = np.repeat(inside, weights[:, b])
            effects.append(_effect(kind, features[drawn, feature], values[drawn]))
        low, high = np.nanquantile(effects, [0.025, 0.975])
        np.testing.assert_allclose(found[pair], [low, high, np.nanstd(effects, ddof=1)], atol=2e-5)


def _effect(kind, x, y):
    if kind == "continuous":
        ranks = stats.rankdata(x), stats.rankdata(y)
        return np.corrcoef(*ranks)[0, 1]
    if kind == "binary":
        u = stats.mannwhitneyu(x[y == 1], x[y == 0]).statistic
        return 2 * u / ((y == 1).sum() * (y == 0).sum()) - 1
    return stats.kruskal(*[x[y == c] for c in np.unique(y)]).statistic / (len(x) - 1)


def test_one_family_gives_no_rank_interval():
    property_ = Property("p", "other", "continuous", np.arange(10.0))
    assert np.isnan(bootstrap_effects(np.eye(10), np.array([0]), property_, ["a"] * 10)).all()


def test_fisher_intervals_cover():
    rng = np.random.default_rng(6)
    covered = 0
    truth = 6 / np.pi * np.arcsin(0.5 / 2)
    for _ in range(400):
        x = rng.normal(size=80)
        y = 0.5 * x + np.sqrt(0.75) * rng.normal(size=80)
        low, high = fisher_z_interval(stats.spearmanr(x, y).statistic, 80)
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98
    assert np.isnan(fisher_z_interval(0.5, 3)[0])


def test_rank_biserial_error_is_that_of_the_auc():
    rng = np.random.default_rng(7)
    draws = []
    for _ in range(600):
        a, b = rng.normal(0.8, size=40), rng.normal(size=60)
        draws.append(2 * stats.mannwhitneyu(a, b).statistic / 2400 - 1)
    assert rank_biserial_error(np.mean(draws), 60, 40) == pytest.approx(np.std(draws), rel=0.15)


def test_random_effects_are_dersimonian_and_lairds():
    rng = np.random.default_rng(8)
    effects, errors = rng.normal(0.3, 0.4, size=6), rng.uniform(0.05, 0.3, size=6)
    expected = combine_effects(effects, errors**2, method_re="dl")
    found = random_effects(effects[:, None], errors[:, None])
    assert found.effect[0] == pytest.approx(expected.mean_effect_re)
    assert found.tau_squared[0] == pytest.approx(expected.tau2)
    assert found.standard_error[0] == pytest.approx(expected.sd_eff_w_re)
    assert found.i_squared[0] == pytest.approx(max(expected.i2, 0))


def test_random_effects_leave_out_what_is_missing():
    effects = np.array([[0.2, 0.5], [0.4, np.nan], [np.nan, np.nan]])
    found = random_effects(effects, np.full((3, 2), 0.1))
    assert found.n_sources.tolist() == [2, 1]
    assert found.effect[0] == pytest.approx(0.3)
    assert np.isnan(found.effect[1])


def test_replication_rate_has_its_interval():
    rate, low, high = replication_rate([True] * 8 + [False] * 2)
    assert rate == 0.8
    assert 0.45 < low < 0.8 < high < 0.97
    assert all(np.isnan(replication_rate([])))
