"""Probes: closed forms against refits, recovery of a planted direction, the floor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from helix_sae.causal.read_out import (
    fit_probe,
    head_probe,
    probe_from_arrays,
    probe_to_arrays,
    r_squared,
    require_strength,
)
from helix_sae.errors import AnalysisError, StoreError, WeakProbeError

N, D = 240, 8


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    clusters = np.array([f"c{i // 3}" for i in range(N)])
    x = rng.normal(size=(N, D)) * np.arange(1, D + 1) + rng.normal(size=(N // 3, D)).repeat(3, axis=0)
    y = x @ np.linspace(-1, 1, D) + rng.normal(size=N)
    split = np.where(np.arange(N) // 3 % 3 == 0, "validation", "discovery")
    return x, y, clusters, split


def test_closed_form_predictions_equal_refits_without_the_cluster(data):
    x, y, clusters, split = data
    fit = fit_probe(x, y, clusters, split, name="y", alphas=[30.0])
    used = split == "discovery"
    z = (x - fit.probe.mean) / fit.probe.scale
    inside = fit.predictions[fit.predictions["split"] == "discovery"]
    for name in np.unique(clusters[used])[::9]:
        left_out = used & (clusters == name)
        # The closed form keeps the centre of the penalised slopes at each refit, as an intercept does.
        model = Ridge(alpha=30.0).fit(z[used & ~left_out], y[used & ~left_out])
        rows = inside.set_index("row").loc[np.flatnonzero(left_out), "prediction"]
        np.testing.assert_allclose(rows, model.predict(z[left_out]), atol=1e-8)
    full = Ridge(alpha=30.0).fit(z[used], y[used])
    np.testing.assert_allclose(fit.probe.predict(x), full.predict(z), atol=1e-8)


def test_metrics_are_those_of_the_predictions(data):
    x, y, clusters, split = data
    fit = fit_probe(x, y, clusters, split, name="y")
    row = fit.metrics.iloc[0]
    held = fit.predictions[fit.predictions["split"] == "validation"]
    assert row["validation"] == pytest.approx(
        r_squared(held["value"].to_numpy(), held["prediction"].to_numpy())
    )
    assert row["validation"] > 0.9
    assert row["n_discovery"] + row["n_validation"] == N
    inside = fit.predictions[fit.predictions["split"] == "discovery"]
    error = (inside["value"] - inside["prediction"]).to_numpy()
    assert fit.probe.residual_variance == pytest.approx(np.mean(error**2))


def test_rows_of_one_cluster_do_not_vouch_for_each_other():
    """Copies of one sequence in a cluster: leaving out the row alone would see them, leaving out the cluster does not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 40)).repeat(4, axis=0)
    y = rng.normal(size=30).repeat(4)
    clusters = np.arange(30).repeat(4).astype(str)
    split = np.where(np.arange(120) // 4 % 4 == 0, "validation", "discovery")
    fit = fit_probe(x, y, clusters, split, name="noise")
    assert fit.metrics["out_of_fold"].iloc[0] < 0.2


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_probes_are_differentiable_and_survive_storage(data, kind):
    x, y, clusters, split = data
    fit = fit_probe(x, y, clusters, split, name="y", kind=kind)
    assert fit.metrics["validation"].iloc[0] > 0.85
    arrays, metadata = probe_to_arrays(fit.probe)
    again = probe_from_arrays(arrays, metadata)
    np.testing.assert_array_equal(again.predict(x), fit.probe.predict(x))
    embedding = torch.from_numpy(x[:3]).requires_grad_(True)
    fit.probe(embedding).sum().backward()
    if kind == "ridge":
        np.testing.assert_allclose(embedding.grad.numpy(), np.tile(fit.probe.direction, (3, 1)), atol=1e-10)
    else:
        with pytest.raises(AnalysisError, match="no one direction"):
            _ = fit.probe.direction
    with pytest.raises(StoreError):
        probe_from_arrays({}, metadata)


def test_logistic_probe_gives_log_odds_and_their_divergence(data):
    x, y, clusters, split = data
    fit = fit_probe(x, (y > 0).astype(float), clusters, split, name="high", kind="logistic")
    assert fit.metrics["metric"].iloc[0] == "auc"
    assert fit.metrics["validation"].iloc[0] > 0.95
    a, b = torch.tensor([0.3]), torch.tensor([-1.2])
    p, q = torch.sigmoid(b), torch.sigmoid(a)
    kl = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    torch.testing.assert_close(fit.probe.divergence(a, b), kl)
    with pytest.raises(AnalysisError, match="0 and 1"):
        fit_probe(x, y, clusters, split, name="y", kind="logistic")


def test_gaussian_divergence(data):
    x, y, clusters, split = data
    probe = fit_probe(x, y, clusters, split, name="y").probe
    value = probe.divergence(torch.tensor([3.0]), torch.tensor([1.0]))
    assert float(value) == pytest.approx(4.0 / (2 * probe.residual_variance), rel=1e-6)


def test_weak_probes_stop_the_analysis(data):
    x, _, clusters, split = data
    noise = np.random.default_rng(1).normal(size=N)
    fit = fit_probe(x, noise, clusters, split, name="noise")
    with pytest.raises(WeakProbeError, match=r"'noise' has a held-out r2 of .* below the floor of 0\.300"):
        require_strength(fit, 0.3)
    require_strength(fit, 0.3, override=True)


def test_missing_targets_take_no_part_and_too_few_are_an_error(data):
    x, y, clusters, split = data
    holes = y.copy()
    holes[::2] = np.nan
    fit = fit_probe(x, holes, clusters, split, name="y")
    assert len(fit.predictions) == N // 2
    holes[6:] = np.nan
    with pytest.raises(AnalysisError, match="discovery clusters"):
        fit_probe(x, holes, clusters, split, name="y")


def test_head_is_judged_on_the_same_clusters(data):
    x, y, clusters, split = data
    fit = head_probe(np.linspace(-1, 1, D), 0.0, x, y, clusters, split, name="y")
    assert fit.metrics["validation"].iloc[0] > 0.9
    np.testing.assert_allclose(fit.probe.predict(x), x @ np.linspace(-1, 1, D), atol=1e-10)
    np.testing.assert_allclose(fit.probe.direction, np.linspace(-1, 1, D))


def test_a_constant_dimension_is_harmless(data):
    x, y, clusters, split = data
    flat = np.column_stack([x, np.full(N, 3.0)])
    assert fit_probe(flat, y, clusters, split, name="y").metrics["validation"].iloc[0] > 0.9


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_another_experiment_s_level_is_not_learned(data, kind):
    """Half of the discovery rows are three units higher: with an offset of their own the probe is as good as before."""
    x, y, clusters, split = data
    shifted = (split == "discovery") & (np.arange(N) // 3 % 2 == 0)
    # The level goes along with the first dimension, so that it would be taken for its effect.
    x = x + 2.0 * shifted[:, None] * (np.arange(D) == 0)
    moved = y + 3.0 * shifted
    plain = fit_probe(x, moved, clusters, split, name="y", kind=kind)
    apart = fit_probe(x, moved, clusters, split, name="y", kind=kind, shifted=shifted)
    assert apart.metrics["validation"].iloc[0] > plain.metrics["validation"].iloc[0]
    assert apart.probe.weights[0].shape == plain.probe.weights[0].shape
    assert apart.probe.residual_variance < plain.probe.residual_variance
    if kind == "ridge":
        np.testing.assert_allclose(apart.probe.direction, np.linspace(-1, 1, D), atol=0.25)
    own = apart.predictions[(apart.predictions["split"] == "discovery") & ~shifted[apart.predictions["row"]]]
    assert apart.probe.residual_variance == pytest.approx(np.mean((own["value"] - own["prediction"]) ** 2))
