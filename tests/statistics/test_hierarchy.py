"""Hierarchy, high against low, metagene."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from helix_sae.errors import AnalysisError, ConfigurationError, DataError
from helix_sae.statistics.hierarchy import feature_hierarchy
from helix_sae.statistics.high_low import high_low_validation
from helix_sae.statistics.metagene import metagene_profile, periodicity


def test_shares_of_a_site_sum_to_one():
    significant = pd.DataFrame(
        {
            "site": ["a", "a", "a", "b"],
            "feature": [1, 1, 2, 5],
            "property": ["functional_mrl", "structural_gc", "structural_gc", "functional_mrl"],
            "category": ["functional", "structural", "structural", "functional"],
            "effect": [0.5, -0.2, -0.4, 0.3],
            "replicated": [True, True, True, False],
        }
    )
    best = significant.iloc[[0, 2, 3]]
    summary = pd.DataFrame({"site": ["a", "b", "c"], "n_alive": [4, 10, 0]})
    table = feature_hierarchy(significant, best, summary).set_index(["site", "category"])
    assert table.loc[("a", "functional"), "share_best"] == 0.25
    assert table.loc[("a", "structural"), "n_any"] == 2
    assert table.loc[("a", "structural"), "top_property"] == "structural_gc"
    assert table.loc[("a", "structural"), "median_effect"] == pytest.approx(0.4)
    assert table.loc[("a", "none"), "n_best"] == 2
    assert table.loc[("b", "none"), "share_best"] == 1, "what did not replicate does not count"
    assert np.isnan(table.loc[("c", "none"), "share_best"])
    assert table.groupby("site")["share_best"].sum()[["a", "b"]].tolist() == [1, 1]
    loose = feature_hierarchy(significant, best, summary, replicated_only=False)
    assert loose.set_index(["site", "category"]).loc[("b", "functional"), "n_best"] == 1


@pytest.fixture(scope="module")
def contrast():
    rng = np.random.default_rng(0)
    n = 600
    activation = np.where(rng.random(n) < 0.3, rng.gamma(3, size=n), 0)
    table = pd.DataFrame(
        {
            "cluster": [f"c{i // 3}" for i in range(n)],
            "functional_mrl": 0.5 * activation + rng.normal(size=n),
            "functional_noise": rng.normal(size=n),
            "regulatory_flag": (activation + rng.normal(size=n) > 1).astype(float),
            "regulatory_class": rng.choice(["a", "b", "c"], n),
        }
    )
    split = np.where(np.arange(n) // 3 % 2, "discovery", "validation")
    codes = {"site": sparse.csr_array(np.column_stack([activation, np.zeros(n)]))}
    pairs = pd.DataFrame(
        {
            "site": "site",
            "feature": [0, 0, 0, 0, 1],
            "property": [
                "functional_mrl",
                "functional_noise",
                "regulatory_flag",
                "regulatory_class",
                "functional_mrl",
            ],
            "effect": [0.5, 0.1, 0.4, 0.1, 0.2],
        }
    )
    return codes, table, split, pairs


def test_high_sequences_differ_where_they_should(contrast):
    codes, table, split, pairs = contrast
    found = high_low_validation(codes, table, split, pairs).set_index(["feature", "property"])
    assert len(found) == 4, "properties of several classes are left out"
    row = found.loc[(0, "functional_mrl")]
    assert row["agrees"]
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["hedges_g_low"] < row["hedges_g"] < row["hedges_g_high"]
    assert 0 < row["cliffs_delta"] <= 1
    assert not found.loc[(0, "functional_noise"), "agrees"]
    flag = found.loc[(0, "regulatory_flag")]
    assert 0 <= flag["mean_low"] < flag["mean_high"] <= 1
    silent = found.loc[(1, "functional_mrl")]
    assert silent["n_high"] == 0
    assert np.isnan(silent["difference"])


def test_numbers_are_those_of_the_held_out_sequences(contrast):
    codes, table, split, pairs = contrast
    row = high_low_validation(codes, table, split, pairs.head(1)).iloc[0]
    activation = codes["site"].toarray()[:, 0]
    above = np.quantile(activation[split == "discovery"], 0.9)
    held_out = split == "validation"
    high = table["functional_mrl"][held_out & (activation > above)]
    low = table["functional_mrl"][held_out & (activation <= 0)]
    assert (row["n_high"], row["n_low"]) == (len(high), len(low))
    assert row["difference"] == pytest.approx(high.mean() - low.mean())
    pooled = np.sqrt(((len(high) - 1) * high.var() + (len(low) - 1) * low.var()) / (len(high) + len(low) - 2))
    correction = 1 - 3 / (4 * (len(high) + len(low) - 2) - 1)
    assert row["hedges_g"] == pytest.approx(correction * (high.mean() - low.mean()) / pooled)
    delta = np.sign(high.to_numpy()[:, None] - low.to_numpy()[None, :]).mean()
    assert row["cliffs_delta"] == pytest.approx(delta)


def test_a_feature_that_is_on_or_off_is_high_when_on(contrast):
    codes, table, split, pairs = contrast
    switch = {"site": sparse.csr_array((codes["site"].toarray() > 0).astype(float))}
    row = high_low_validation(switch, table, split, pairs.head(1)).iloc[0]
    assert row["high_above"] < 1
    assert row["n_high"] > 50
    assert row["agrees"]


def test_bad_requests_are_refused(contrast):
    codes, table, split, pairs = contrast
    with pytest.raises(ConfigurationError, match="quantile"):
        high_low_validation(codes, table, split, pairs, quantile=0.3)
    with pytest.raises(ConfigurationError, match="2000"):
        high_low_validation(codes, table, split, pairs, n_resamples=10)
    with pytest.raises(DataError, match="elsewhere"):
        high_low_validation(codes, table, split, pairs.assign(site="elsewhere"))


def test_metagene_counts_from_the_landmark():
    codes = sparse.csr_array(np.arange(20.0).reshape(10, 2))
    profile = metagene_profile(
        codes, np.array([1, 2, -1]), np.array([0, 4, 8, 10]), np.array([1]), before=2, after=3
    )
    by_position = profile.set_index("position")
    assert by_position["n_sequences"].tolist() == [1, 2, 2, 2, 1]
    # rows 1 and 4 + 2 carry the landmark; feature 1 holds 2 x row + 1
    assert by_position.loc[0, "mean"] == np.mean([3, 13])
    assert by_position.loc[0, "standard_error"] == pytest.approx(np.std([3, 13], ddof=1) / np.sqrt(2))
    assert by_position.loc[2, "mean"] == 7
    assert np.isnan(by_position.loc[2, "standard_error"])
    with pytest.raises(AnalysisError, match="landmark"):
        metagene_profile(codes, np.array([-1, -1, -1]), np.array([0, 4, 8, 10]), np.array([0]))


def test_a_period_of_three_is_seen_and_noise_is_not():
    rng = np.random.default_rng(1)
    x = np.arange(60)

    def profile(values):
        return pd.DataFrame({"feature": 0, "position": x, "mean": values})

    periodic = periodicity(profile((x % 3 == 1) + 0.1 * rng.normal(size=60) + 0.02 * x)).iloc[0]
    assert periodic["share"] > 0.9
    assert periodic["p_value"] < 1e-10
    assert periodic["phase"] == 1
    p = [periodicity(profile(rng.normal(size=60))).iloc[0]["p_value"] for _ in range(300)]
    assert 0.4 < np.mean(p) < 0.6
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert np.isnan(periodicity(profile(np.ones(60))).iloc[0]["share"])
    short = periodicity(profile(np.where(x < 7, 1.0, np.nan))).iloc[0]
    assert np.isnan(short["share"])
