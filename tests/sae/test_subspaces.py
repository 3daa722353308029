"""Subspaces of what does not come back, where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import AnalysisError
from helix_sae.sae.stability import SeedFeatures
from helix_sae.sae.subspaces import (
    describe_unstable,
    dimensions,
    overlap,
    participation_ratio,
    reconstructed_covariance,
    share_of_effect,
    share_of_variance,
)

D_IN, N = 12, 4000


def seeds_with_a_dense_plane() -> tuple[dict[str, SeedFeatures], np.ndarray]:
    """Six shared sparse features, and a plane (dimensions 0 and 1) that both seeds cut their own way."""
    rng = np.random.default_rng(0)
    sparse = (rng.random((N, 6)) < 0.1) * (1 + rng.random((N, 6)))
    plane = rng.normal(size=(N, 2))
    x = np.concatenate([2 * plane, sparse, np.zeros((N, 4))], axis=1) + 0.01 * rng.normal(size=(N, D_IN))
    seeds: dict[str, SeedFeatures] = {}
    for seed, start in enumerate([0.0, np.pi / 3]):
        turns = start + 2 * np.pi / 3 * np.arange(3)
        rows = np.stack([np.cos(turns), np.sin(turns)], axis=1)
        # Three half-axes at 120 degrees: |a|, with x = sum of the positive parts.
        parts = np.maximum(plane @ rows.T * 2, 0)
        codes = np.concatenate([sparse, parts], axis=1)
        directions = np.zeros((9, D_IN))
        directions[:6, 2:8] = np.eye(6)
        directions[6:, :2] = rows
        order = np.random.default_rng(seed).permutation(9)
        seeds[f"seed {seed}"] = SeedFeatures(directions[order], scipy.sparse.csr_array(codes[:, order]))
    return seeds, x


def test_a_plane_that_every_seed_cuts_its_own_way_is_found_as_a_plane() -> None:
    seeds, x = seeds_with_a_dense_plane()
    found = describe_unstable(seeds, x, "layers.0")
    assert found["site"] == "layers.0"
    assert found["n_unstable"] == 3
    assert found["share_unstable"] == pytest.approx(1 / 3)
    assert found["dimensions"] == 2
    assert found["participation_ratio"] == pytest.approx(2, abs=0.05)
    assert found["overlap_lowest"] == pytest.approx(1)
    assert found["overlap_isotropic"] == pytest.approx(2 / 12)
    assert found["overlap_isotropic"] < found["overlap_by_chance"] < 1
    assert 0.5 < found["share_variance"] < 1


def test_seeds_that_agree_leave_no_subspace() -> None:
    seeds, x = seeds_with_a_dense_plane()
    one = seeds["seed 0"]
    found = describe_unstable({"a": one, "b": SeedFeatures(2 * one.directions, one.codes)}, x)
    assert [found[key] for key in ("n_unstable", "dimensions", "share_variance")] == [0, 0, 0]
    assert np.isnan(found["overlap"])
    assert np.isnan(found["overlap_by_chance"])


def test_one_seed_is_an_error() -> None:
    seeds, x = seeds_with_a_dense_plane()
    with pytest.raises(AnalysisError, match=r"At layers\.0, 1 seed cannot be compared"):
        describe_unstable({"a": seeds["seed 0"]}, x, "layers.0")


def test_covariance_and_variance_are_those_of_the_dense_reconstruction() -> None:
    seeds, x = seeds_with_a_dense_plane()
    one, kept = seeds["seed 1"], np.arange(9) < 4
    dense = one.codes.toarray()
    part = dense[:, kept] @ one.directions[kept]
    np.testing.assert_allclose(reconstructed_covariance(one, kept), np.cov(part.T, bias=True), atol=1e-12)
    whole = dense @ one.directions
    explained = [1 - (x - y).var(axis=0).sum() / x.var(axis=0).sum() for y in (whole, whole - part)]
    assert share_of_variance(one, kept, x) == pytest.approx(explained[0] - explained[1])


@given(st.integers(1, 5), st.integers(0, 50))
def test_overlap_is_the_squared_length_of_projections(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.linalg.qr(rng.normal(size=(8, k)))[0] for _ in range(2))
    assert overlap(a, b) == pytest.approx(np.sum((a.T @ b) ** 2) / k)
    assert overlap(a, a @ np.linalg.qr(rng.normal(size=(k, k)))[0]) == pytest.approx(1)


def test_dimensions_count_what_holds_the_share() -> None:
    assert dimensions(np.array([5.0, 4.0, 0.5, 0.5])) == 2
    assert dimensions(np.array([5.0, 3.9, 0.6, 0.5])) == 3
    assert dimensions(np.zeros(3)) == 0
    assert participation_ratio(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert participation_ratio(np.zeros(3)) == 0


def test_share_of_effect_counts_sizes() -> None:
    kept = np.array([True, False, False])
    assert share_of_effect(np.array([-3.0, 1.0, 0.0]), kept) == pytest.approx(0.75)
    assert np.isnan(share_of_effect(np.zeros(3), kept))
