"""Known features, and how well the stability of learned ones tells them from artefacts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import ConfigurationError
from helix_sae.sae import ArrayBatches, parse_sae_config, train_saes
from helix_sae.sae.stability import SeedFeatures, best_partners, feature_stability, held_out_features
from helix_sae.sae.synthetic import KnownFeatures, SyntheticConfig, judge_stability, zipf_frequencies

HARD = SyntheticConfig(
    d_in=20,
    n_features=30,
    active=2.5,
    correlation=0.5,
    share_children=0.4,
    background_rank=3,
    background_share=0.3,
)


@given(st.integers(4, 200), st.floats(0, 2), st.floats(0.01, 0.95))
def test_frequencies_fall_with_rank_and_add_up(n: int, exponent: float, share: float) -> None:
    frequencies = zipf_frequencies(n, share * n * 0.25, exponent)
    assert frequencies.sum() == pytest.approx(share * n * 0.25)
    assert (np.diff(frequencies) <= 1e-15).all()
    assert frequencies.max() <= 0.25 + 1e-12


def test_known_features_are_as_often_active_as_they_say() -> None:
    known = KnownFeatures(HARD, seed=0)
    active = known.draw(40_000, seed=1).known.codes.toarray() > 0
    np.testing.assert_allclose(active.mean(axis=0), known.frequencies, atol=0.02)
    children = np.flatnonzero(known.parents >= 0)
    assert len(children) == 12
    assert (active[:, children] <= active[:, known.parents[children]]).all()
    assert not (active[:, children[::2]] & active[:, children[1::2]]).any()


def test_activations_are_features_background_and_noise() -> None:
    known = KnownFeatures(HARD, seed=0)
    draw = known.draw(20_000, seed=1)
    rest = draw.activations - known.mean - draw.known.codes @ known.directions
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(rest.T)))[::-1]
    assert spread[2] > 5 * spread[3]
    np.testing.assert_allclose(spread[3:], HARD.noise, rtol=0.1)
    sparse = np.trace(np.cov((draw.known.codes @ known.directions).T))
    assert np.sum(spread[:3] ** 2) / (sparse + np.sum(spread[:3] ** 2)) == pytest.approx(0.3, abs=0.06)
    assert np.array_equal(draw.activations, known.draw(20_000, seed=1).activations)
    assert not np.array_equal(draw.activations, known.draw(20_000, seed=2).activations)


def test_common_factors_make_features_occur_together() -> None:
    apart, together = (
        np.abs(
            np.corrcoef(KnownFeatures(config, 0).draw(20_000, 1).known.codes.toarray().T) - np.eye(30)
        ).mean()
        for config in (SyntheticConfig(n_features=30), SyntheticConfig(n_features=30, correlation=0.6))
    )
    assert together > 4 * apart


def test_the_absorbed_are_a_child_with_its_parent_and_a_parent_without_children() -> None:
    known = KnownFeatures(HARD, seed=0)
    draw = known.draw(5000, seed=1)
    children = np.flatnonzero(known.parents >= 0)
    codes, absorbed = draw.known.codes.toarray(), draw.absorbed.codes.toarray()
    np.testing.assert_array_equal(absorbed[:, : len(children)] > 0, codes[:, children] > 0)
    for column, parent in enumerate(np.unique(known.parents[children]), start=len(children)):
        own = children[known.parents[children] == parent]
        wanted = (codes[:, parent] > 0) & ~(codes[:, own] > 0).any(axis=1)
        np.testing.assert_array_equal(absorbed[:, column] > 0, wanted)
    assert KnownFeatures(SyntheticConfig(), 0).draw(10, 0).absorbed.directions.shape == (0, 48)


def test_a_judge_counts_what_is_true_absorbed_and_neither() -> None:
    draw = KnownFeatures(HARD, seed=0).draw(3000, seed=1)
    rng = np.random.default_rng(0)
    wrong = SeedFeatures(rng.normal(size=(6, 20)), scipy.sparse.csr_array(rng.random((3000, 6)) < 0.05))
    # Of the composites, two that no known feature is like by itself.
    unlike = np.flatnonzero(best_partners(draw.absorbed, draw.known).likeness < 0.7)[:2]
    parts = (
        SeedFeatures(draw.known.directions[:9], draw.known.codes[:, :9]),
        SeedFeatures(draw.absorbed.directions[unlike], draw.absorbed.codes[:, unlike]),
        wrong,
    )
    codes = scipy.sparse.csr_array(scipy.sparse.hstack([part.codes for part in parts]))
    learned = SeedFeatures(np.concatenate([part.directions for part in parts]), codes)
    others = {str(s): SeedFeatures(2 * learned.directions[:12], codes[:, :12]) for s in range(4)}
    judged = judge_stability(feature_stability(learned, others), learned, draw)
    assert [judged[key] for key in ("n_true", "n_absorbed", "n_artefacts", "n_certified")] == [9, 2, 6, 12]
    assert judged["precision"] == pytest.approx(9 / 12)
    assert judged["precision_or_absorbed"] == pytest.approx(11 / 12)
    assert judged["auc_or_absorbed"] == pytest.approx(1 - 1 / 6 / 2)
    assert judged["recall"] == judged["recall_all"] == pytest.approx(9 / 30, abs=0.04)


@pytest.mark.parametrize(
    "values",
    [
        {"active": 40.0},
        {"correlation": 1.0},
        {"share_children": 0.8},
        {"background_rank": 99},
        {"n_features": 2},
    ],
)
def test_what_cannot_be_drawn_is_an_error(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="cannot be drawn from"):
        SyntheticConfig(**values)  # pyright: ignore[reportArgumentType]


def test_too_few_roots_for_the_active_features_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"4 features without a parent cannot make 2\.0 active"):
        zipf_frequencies(4, 2.0, 1.0)


def test_stability_tells_known_features_from_artefacts() -> None:
    known = KnownFeatures(SyntheticConfig(d_in=24, n_features=28, active=2.0, correlation=0.4), seed=0)
    train, held = known.draw(12_000, seed=1), known.draw(6000, seed=2)
    config = parse_sae_config(
        {"architecture": "relu", "l1_coefficient": 3e-3, "learning_rate": 5e-3, "expansion_factor": 2}
    )
    seeds = [
        held_out_features(
            train_saes(
                ArrayBatches({"a": train.activations}, 512, seed=seed, epochs=20), {"r": config}, seed=seed
            ).by_site()["a"],
            held.activations,
        )
        for seed in range(5)
    ]
    table = feature_stability(seeds[0], {str(i): other for i, other in enumerate(seeds[1:], 1)})
    judged = judge_stability(table, seeds[0], held)
    assert judged["n_artefacts"] >= 5
    assert judged["auc"] >= 0.95
    assert judged["precision"] >= 0.95
    assert judged["recall"] >= 0.8
