"""Streaming measures against a plain computation on everything at once, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_toys import CONFIGS, D_IN, superposition

from helix_sae.errors import DataError
from helix_sae.sae import SparseAutoencoder, estimate_scaling, evaluate_sae, random_autoencoder
from helix_sae.sae.metrics import nearest_decoder_cosine

NAMES = sorted(CONFIGS)


def toy_sae(name: str) -> SparseAutoencoder:
    return random_autoencoder(
        CONFIGS[name].resolve(D_IN), estimate_scaling(superposition(500), "toy"), seed=0
    )


def plain_measures(sae: SparseAutoencoder, x: torch.Tensor) -> dict[str, float]:
    codes = sae.encode(x).detach().double()
    reconstruction = (sae.encode(x) @ sae.W_dec + sae.b_dec).detach().double()
    wide = x.double()
    error = (wide - reconstruction).square().sum()
    cosine = (wide * reconstruction).sum(1) / (wide.norm(dim=1) * reconstruction.norm(dim=1))
    density = (codes > 0).double().mean(0)
    return {
        "n_tokens": float(x.shape[0]),
        "l0": float((codes > 0).sum(1).double().mean()),
        "l1": float(codes.sum(1).mean()),
        "mse": float(error / x.numel()),
        "explained_variance": float(1 - error / (wide - wide.mean(0)).square().sum()),
        "cosine": float(cosine.mean()),
        "dead_share": float((density == 0).double().mean()),
        "dense_share": float((density > 0.1).double().mean()),
    }


@pytest.mark.parametrize("name", NAMES)
def test_measures_equal_the_plain_computation(name: str) -> None:
    sae, x = toy_sae(name), superposition(777, seed=4)
    evaluation = evaluate_sae(sae, x.split(100))
    for measure, value in plain_measures(sae, x).items():
        assert evaluation.summary[measure] == pytest.approx(value, rel=1e-4, abs=1e-6), measure
    codes = sae.encode(x).detach().double().numpy()
    features = evaluation.features
    np.testing.assert_allclose(features["density"], (codes > 0).mean(0))
    np.testing.assert_allclose(features["max_activation"], codes.max(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["mean"], codes.mean(0), rtol=1e-4, atol=1e-6)
    with np.errstate(invalid="ignore"):
        when_active = codes.sum(0) / (codes > 0).sum(0)
    np.testing.assert_allclose(features["mean_when_active"], np.nan_to_num(when_active), rtol=1e-4, atol=1e-5)
    alive = int(features["alive"].sum())
    assert evaluation.density_histogram["n_features"].sum() == alive
    assert evaluation.summary["dead_share"] == pytest.approx(1 - alive / sae.d_sae)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_batches_do_not_matter(sizes: list[int]) -> None:
    sae, x = toy_sae("topk"), superposition(sum(sizes), seed=2)
    pieces, whole = evaluate_sae(sae, x.split(sizes)).summary, evaluate_sae(sae, [x]).summary
    for measure, value in whole.items():
        assert pieces[measure] == pytest.approx(value, rel=1e-5, abs=1e-9, nan_ok=True)


def test_a_far_mean_does_not_blur_the_variance() -> None:
    x = superposition(2000) + 1000
    config = CONFIGS["topk"].resolve(D_IN)
    sae = random_autoencoder(config, estimate_scaling(x, "toy"), seed=0)
    summary = evaluate_sae(sae, x.split(256)).summary
    assert summary["explained_variance"] == pytest.approx(
        plain_measures(sae, x)["explained_variance"], abs=1e-3
    )


def test_decoder_similarity_finds_twins() -> None:
    decoder = torch.nn.functional.normalize(torch.eye(6)[[0, 1, 2, 3, 0]] + 0.0, dim=1)
    torch.testing.assert_close(nearest_decoder_cosine(decoder, block=2), torch.tensor([1.0, 0, 0, 0, 1.0]))


def test_an_sae_without_a_living_feature() -> None:
    sae = toy_sae("relu")
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    evaluation = evaluate_sae(sae, [superposition(50)])
    assert evaluation.summary["dead_share"] == 1.0
    assert evaluation.summary["l0"] == 0.0
    assert evaluation.density_histogram["n_features"].sum() == 0


def test_what_cannot_be_measured() -> None:
    sae = toy_sae("topk")
    with pytest.raises(DataError, match="no held-out"):
        evaluate_sae(sae, [])
    with pytest.raises(DataError, match="site b have shape"):
        evaluate_sae(sae, [torch.zeros(4, D_IN + 1)], site="site b")
    with pytest.raises(DataError, match="not finite"):
        evaluate_sae(sae, [torch.full((4, D_IN), float("nan"))])
