"""Stability of features over seeds, against a slow plain twin and on dictionaries whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_toys import CONFIGS, D_IN, superposition
from scipy.stats import binomtest

from helix_sae.errors import AnalysisError
from helix_sae.sae import ArrayBatches, stability, train_saes
from helix_sae.sae.stability import (
    STABILITY_COLUMNS,
    SeedFeatures,
    best_partners,
    exact_interval,
    feature_stability,
    held_out_features,
    join_certified,
    stability_summary,
    unknown_stability,
)


def seed_features(seed: int, d_sae: int = 9, d_in: int = 4, n: int = 60, dead: int = 1) -> SeedFeatures:
    rng = np.random.default_rng(seed)
    codes = rng.random((n, d_sae)) * (rng.random((n, d_sae)) < 0.3)
    codes[:, :dead] = 0
    return SeedFeatures(rng.normal(size=(d_sae, d_in)), scipy.sparse.csr_array(codes))


def plain_partner(one: SeedFeatures, other: SeedFeatures, feature: int) -> tuple[float, float]:
    """Cosine and correlation with the feature that is most like it, one pair at a time."""
    a, found = one.codes.toarray()[:, feature], (-2.0, 0.0, 0.0)
    for j, row in enumerate(other.directions):
        b = other.codes.toarray()[:, j]
        d = one.directions[feature]
        cosine = float(d @ row / np.linalg.norm(d) / np.linalg.norm(row))
        correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
        found = max(found, (min(cosine, correlation), cosine, correlation))
    return found[1:]


@pytest.mark.parametrize("largest", [2**22, 20])
def test_partners_are_those_of_the_plain_twin(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr(stability, "_LARGEST_BLOCK", largest)
    one, other = seed_features(0), seed_features(1, d_sae=7)
    partners = best_partners(one, other)
    wanted = np.array([plain_partner(one, other, i) for i in range(9)])
    np.testing.assert_allclose(partners.likeness, wanted.min(axis=1), atol=1e-12)
    alive = partners.correlation != 0  # a dead feature has several partners that are equally unlike it
    np.testing.assert_allclose(partners.cosine[alive], wanted[alive, 0], atol=1e-12)
    np.testing.assert_allclose(partners.correlation[alive], wanted[alive, 1], atol=1e-12)


def test_stability_is_the_share_of_seeds_of_the_plain_twin() -> None:
    reference = seed_features(0, d_in=2)
    others = {str(seed): mixed(reference, seed, kept=3 * seed) for seed in range(1, 5)}
    table = feature_stability(reference, others)
    assert tuple(table.columns) == ("feature", "alive", *STABILITY_COLUMNS)
    pairs = np.array([[plain_partner(reference, other, i) for other in others.values()] for i in range(9)])
    back = (pairs.min(axis=2) >= 0.7).sum(axis=1)
    assert set(back) >= {0, 2}
    np.testing.assert_array_equal(table["stability"], back / 4)
    living = table["alive"].to_numpy()
    np.testing.assert_allclose(table["correlation"][living], pairs[living, :, 1].mean(axis=1), atol=1e-12)
    np.testing.assert_array_equal(table["certified"] == "yes", back >= 3)
    assert table["certified"].isin(["yes", "no"]).all()
    assert not table["alive"][0]
    assert table["stability"][0] == 0


def mixed(reference: SeedFeatures, seed: int, kept: int) -> SeedFeatures:
    """Another dictionary in another order, that has the first ``kept`` features of the reference."""
    other, order = seed_features(100 + seed, d_in=2), np.random.default_rng(seed).permutation(9)
    directions, codes = other.directions.copy(), other.codes.toarray()
    directions[:kept] = 2 * reference.directions[:kept]
    codes[:, :kept] = 3 * reference.codes.toarray()[:, :kept]
    return SeedFeatures(directions[order], scipy.sparse.csr_array(codes[:, order]))


def test_the_same_directions_active_elsewhere_do_not_come_back() -> None:
    reference = seed_features(0, d_in=6, n=400, dead=0)
    rng = np.random.default_rng(0)
    others = {
        str(s): SeedFeatures(2 * reference.directions, reference.codes[rng.permutation(400)])
        for s in range(4)
    }
    assert (feature_stability(reference, others)["stability"] == 0).all()
    summary = stability_summary(reference, others)
    assert summary["share_cosine"] == 1
    assert summary["share_back"] == 0
    assert summary["pw_mcc"] == pytest.approx(1)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_are_those_of_scipy(counts: tuple[int, int]) -> None:
    k, n = counts
    wanted = binomtest(k, n).proportion_ci(method="exact")
    low, high = exact_interval(np.array([k]), n)
    assert (low[0], high[0]) == pytest.approx((wanted.low, wanted.high))


def test_without_enough_seeds_nothing_is_certified_and_nothing_blank() -> None:
    reference = seed_features(0, d_in=2)
    table = feature_stability(reference, {str(s): mixed(reference, s, 9) for s in range(3)})
    assert (table["certified"] == "unknown").all()
    assert table["stability"].notna().all()
    alone = feature_stability(reference, {})
    assert tuple(alone.columns) == tuple(table.columns)
    assert alone.equals(unknown_stability(reference.alive))
    assert (alone["certified"] == "unknown").all()
    assert np.isnan(stability_summary(reference, {})["share_certified"])


def test_seeds_that_mean_nothing_are_errors() -> None:
    reference, other = seed_features(0, d_in=2), seed_features(1, d_in=2)
    dead = SeedFeatures(other.directions, scipy.sparse.csr_array(other.codes.shape))
    with pytest.raises(AnalysisError, match=r"At layers.0, seed 3 has collapsed: none of its 9 features"):
        feature_stability(reference, {"seed 2": other, "seed 3": dead}, "layers.0")
    with pytest.raises(AnalysisError, match="the reference has collapsed"):
        feature_stability(dead, {"seed 2": other})
    with pytest.raises(AnalysisError, match="seed 2 is the reference again"):
        feature_stability(reference, {"seed 2": SeedFeatures(reference.directions.copy(), other.codes)})
    with pytest.raises(AnalysisError, match="60 and of 50 held-out tokens"):
        feature_stability(reference, {"a": seed_features(1, d_in=2, n=50)})


def test_a_site_of_rank_one_is_compared_like_any_other() -> None:
    codes = scipy.sparse.csr_array(np.random.default_rng(0).random((50, 4)) * [1, 1, 0, 0])
    line = SeedFeatures(np.outer([1.0, -1.0, 1.0, 0.0], np.ones(3)), codes)
    table = feature_stability(line, {str(i): SeedFeatures(2 * line.directions, codes) for i in range(4)})
    assert table["stability"].tolist() == [1, 1, 0, 0]


def test_codes_of_a_trained_dictionary_are_its_codes() -> None:
    x = superposition(2000)
    sae = train_saes(ArrayBatches({"a": x}, 200, seed=0), {"t": CONFIGS["topk"]}).by_site()["a"]
    features = held_out_features(sae, x)
    dense = sae.encode(x).detach().numpy()
    np.testing.assert_allclose(features.codes.toarray(), dense, atol=1e-5)
    assert features.directions.shape == (sae.d_sae, D_IN)
    with pytest.raises(AnalysisError, match=r"no held-out activations of layers\.0"):
        held_out_features(sae, torch.zeros(0, D_IN), "layers.0")


def test_a_table_of_findings_gets_what_is_known_of_its_features() -> None:
    known = pd.DataFrame(
        {
            "site": ["a", "a", "b"],
            "feature": [0, 1, 1],
            "stability": [1.0, 0.25, np.nan],
            "certified": ["yes", "no", "unknown"],
        }
    )
    found = pd.DataFrame(
        {"site": ["b", "a", "a", "a", "c"], "feature": ["1", "error", "1", "0", "0"], "effect": range(5)}
    )
    joined = join_certified(found, known)
    assert joined["certified"].tolist() == ["unknown", "not a feature", "no", "yes", "unknown"]
    np.testing.assert_array_equal(joined["stability"], [np.nan, np.nan, 0.25, 1.0, np.nan])
    assert joined["effect"].tolist() == list(range(5))
    assert list(join_certified(found.head(0), known).columns) == [*found.columns, "stability", "certified"]
