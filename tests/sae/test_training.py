"""The trainer: independence, schedules, unit rows, dead features, resume, and clear errors."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from killed_trainings import train
from sae_toys import CONFIGS, D_IN, superposition

import helix_sae.sae.training as training_module
from helix_sae.errors import ConfigurationError, DataError, StoreError
from helix_sae.sae import (
    ArrayBatches,
    EarlyStopping,
    ReluConfig,
    SaeKey,
    Scratch,
    SparseAutoencoder,
    TopKConfig,
    evaluate_sae,
    parse_sae_config,
    train_saes,
)
from helix_sae.sae.architectures.relu import ReluObjective
from helix_sae.sae.learner import Learner
from helix_sae.sae.scaling import estimate_scaling
from helix_sae.sae.stability import matched_cosines, random_match
from helix_sae.sae.stack import clip_, stacks_of

NAMES = sorted(CONFIGS)


def batches(n: int = 1000, epochs: int = 2, size: int = 128) -> ArrayBatches:
    arrays = {"layers.0": superposition(n), "layers.1": 10 * superposition(n, seed=1)}
    return ArrayBatches(arrays, size, seed=3, epochs=epochs)


def same(left: SparseAutoencoder, right: SparseAutoencoder) -> bool:
    pairs = zip(left.named_parameters(), right.named_parameters(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_many_at_once_equal_each_alone(n_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        together = train_saes(batches(), CONFIGS, seed=5)
    finally:
        torch.set_num_threads(before)
    assert set(together.saes) == {SaeKey(site, name) for site in ("layers.0", "layers.1") for name in CONFIGS}
    for name, config in CONFIGS.items():
        alone = train_saes(batches(), {"other name": config}, sites=["layers.1"], seed=5)
        assert same(alone.by_site()["layers.1"], together.saes[SaeKey("layers.1", name)]), name


def test_directions_are_what_one_unit_of_a_code_adds() -> None:
    for key, sae in train_saes(batches(200), CONFIGS).saes.items():
        with torch.no_grad():
            added = sae.decode(torch.eye(sae.d_sae)) - sae.decode(torch.zeros(1, sae.d_sae))
            torch.testing.assert_close(sae.directions, added, rtol=1e-5, atol=1e-5, msg=str(key))


def test_seeds_decide() -> None:
    config = TopKConfig(k=4)
    first, again = (train_saes(batches(), {"a": config}, seed=1).by_site()["layers.0"] for _ in range(2))
    assert same(first, again)
    assert not same(first, train_saes(batches(), {"a": config}, seed=2).by_site()["layers.0"])
    shifted = train_saes(batches(), {"a": config.model_copy(update={"seed": 1})}, seed=0)
    assert same(first, shifted.by_site()["layers.0"])


def in_the_order_of(seed: int) -> ArrayBatches:
    arrays = {"layers.0": superposition(500), "layers.1": 10 * superposition(500, seed=1)}
    return ArrayBatches(arrays, 128, seed=seed, epochs=2)


def test_each_seed_has_a_start_and_an_order_of_its_own() -> None:
    configs = {"a": TopKConfig(k=4), "b": ReluConfig(seed=1)}
    together = train_saes(in_the_order_of, configs, n_seeds=3, seed=5)
    assert {site: len(saes) for site, saes in together.seeds("a").items()} == {"layers.0": 3, "layers.1": 3}
    assert together.by_site("a")["layers.0"] is together.saes[SaeKey("layers.0", "a", 0)]
    assert set(together.history["seed"]) == {0, 1, 2}
    # The third alone: its start and its order, scaled by what the run's own first tokens are like.
    alone = train_saes(in_the_order_of, {"a": TopKConfig(k=4, seed=2)}, seed=5).by_site()["layers.1"]
    assert same(alone, together.seeds("a")["layers.1"][2])
    # One order for all leaves the same starts, and other results.
    shared = train_saes(in_the_order_of(5), {"a": TopKConfig(k=4)}, n_seeds=3, seed=5).seeds()["layers.0"]
    kept = [same(one, other) for one, other in zip(shared, together.seeds("a")["layers.0"], strict=True)]
    assert kept == [True, False, False]
    # The same start where only the sum of the seeds is the same.
    assert same(
        train_saes(in_the_order_of, {"b": ReluConfig(seed=3)}, seed=5).by_site()["layers.0"],
        together.seeds("b")["layers.0"][2],
    )
    with pytest.raises(ConfigurationError, match="n_seeds is 0"):
        train_saes(batches(), configs, n_seeds=0)


@pytest.mark.parametrize("name", NAMES)
def test_learns_and_keeps_unit_rows_after_every_step(name: str) -> None:
    x = superposition(3000)
    scaling = estimate_scaling(x, "toy")
    config = CONFIGS[name].resolve(D_IN).model_copy(update={"learning_rate": 1e-2})
    learner = Learner(SaeKey("toy", name), config, scaling, n_steps=300, seed=0)
    z = scaling.apply(x)
    errors = []
    for step in range(300):
        result = learner.step(z[torch.arange(step * 128, (step + 1) * 128) % 3000])
        errors.append(float(result.squared_error) / result.residual.numel())
        for rows in learner.objective.unit_rows:
            norms = learner.params[rows].detach().norm(dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-6)
    # Four active features describe the 30 directions at least twice as well as the best four fixed ones do.
    assert sum(errors[-20:]) / 20 < left_by_components(z, 4) / 2


def left_by_components(z: torch.Tensor, n: int) -> float:
    """Mean squared error of ``n`` principal components."""
    variances = torch.linalg.eigvalsh(torch.cov(z.T.double()))
    return float(variances[:-n].sum()) / z.shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_features_may_start_on_the_data(name: str) -> None:
    z = estimate_scaling(superposition(500), "toy").apply(superposition(500))
    unit = torch.nn.functional.normalize(z, dim=1)
    nearest = {}
    for share in (0.0, 0.5, 1.0):
        config = CONFIGS[name].resolve(D_IN).model_copy(update={"data_start": share})
        learner = Learner(SaeKey("toy", "a"), config, estimate_scaling(z, "toy"), 10, 0, sample=z)
        rows = learner.params["encoder"].detach()
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(config.d_sae))
        if "decoder" in learner.params:
            assert torch.equal(rows, learner.params["decoder"].detach())
        nearest[share] = float((rows @ unit.T).amax(1).mean())
    assert nearest[0.0] < nearest[0.5] < nearest[1.0]
    assert nearest[1.0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigurationError, match="sample"):
        Learner(SaeKey("toy", "a"), config, estimate_scaling(z, "toy"), 10, 0)


def test_starting_on_the_data_is_the_same_alone_and_together() -> None:
    config = {"a": TopKConfig(k=4, data_start=0.5)}
    together = train_saes(batches(), {**config, "b": TopKConfig(k=3)}).saes[SaeKey("layers.1", "a")]
    assert same(together, train_saes(batches(), config, sites=["layers.1"]).by_site()["layers.1"])


def test_learning_rate_rises_and_falls_and_is_never_zero() -> None:
    config = TopKConfig(k=2, learning_rate=0.1, warmup_fraction=0.1, decay_fraction=0.5).resolve(D_IN)
    scaling = estimate_scaling(superposition(100), "toy")
    learner = Learner(SaeKey("toy", "a"), config, scaling, n_steps=100, seed=0)
    rates = []
    for learner.steps_done in range(100):
        rates.append(learner.rate())
    assert rates[0] == pytest.approx(0.1 / 11)
    assert max(rates) == rates[40] == 0.1
    assert 0 < rates[99] < 0.003
    assert rates[:10] == sorted(rates[:10])
    assert rates[60:] == sorted(rates[60:], reverse=True)


def test_bfloat16_learns_as_well() -> None:
    errors = {}
    for precision in ("float32", "bfloat16"):
        result = train_saes(
            batches(epochs=6), {"a": TopKConfig(k=4, learning_rate=1e-2)}, precision=precision
        )
        errors[precision] = result.history["mse"].iloc[-1]
    assert errors["bfloat16"] == pytest.approx(errors["float32"], rel=0.1)
    assert errors["bfloat16"] != errors["float32"]


def test_history_holdout_and_progress() -> None:
    seen: list[tuple[int, int]] = []
    holdout = [{"layers.0": superposition(500, seed=9), "layers.1": 10 * superposition(500, seed=8)}]
    result = train_saes(
        batches(),
        {"a": TopKConfig(k=4)},
        holdout=holdout,
        log_every=5,
        progress=lambda step, n_steps, latest: seen.append((step, n_steps)),
    )
    steps = [1, 6, 11, 16]
    assert seen == [(step, 16) for step in steps]
    assert list(result.history["step"]) == [step for step in steps for _ in range(2)]
    assert result.history["tokens"].max() == 2000
    assert result.history.notna().all().all()
    assert list(result.metrics["site"]) == ["layers.0", "layers.1"]
    assert result.metrics["explained_variance"].between(-1, 1).all()
    assert result.steps_done == 16


def test_without_holdout_there_are_no_measures() -> None:
    result = train_saes(batches(), {"a": TopKConfig(k=4)})
    assert result.evaluations == {}
    assert list(result.metrics.columns) == ["site", "config", "seed"]


def test_by_site_wants_a_name_when_there_are_several() -> None:
    result = train_saes(batches(), {"a": TopKConfig(k=4), "b": TopKConfig(k=3)}, n_steps=1)
    assert set(result.by_site("b")) == {"layers.0", "layers.1"}
    with pytest.raises(ConfigurationError, match="a, b"):
        result.by_site()


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_folded_in(name: str) -> None:
    """Codes times the scale, and reconstructions, are those of training on scaled activations."""
    x = superposition(600)
    scaling = estimate_scaling(x, "toy")
    config = CONFIGS[name].resolve(D_IN)
    if name == "relu":
        config = config.model_copy(update={"stretch": False})
    learner = Learner(SaeKey("toy", name), config, scaling, n_steps=20, seed=0)
    z = scaling.apply(x)
    for _ in range(20):
        learner.step(z)
    sae = learner.export(z)
    params = {key: value.detach() for key, value in learner.params.items()}
    trained = learner.objective.autograd_gradients(params, z, training_context())
    torch.testing.assert_close(
        (sae(x) - scaling.mean) * scaling.scale - z, trained.residual, rtol=1e-4, atol=2e-4
    ) if name not in ("batchtopk", "matryoshka") else None
    assert float((sae(x) - x).square().sum()) * scaling.scale**2 == pytest.approx(
        float(trained.squared_error), rel=0.05
    )
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-5)


def training_context() -> Any:
    from helix_sae.sae.objective import StepContext

    return StepContext()


def test_threshold_gives_k_active_features() -> None:
    result = train_saes(
        ArrayBatches({"a": superposition(4000)}, 256, seed=0, epochs=4),
        {name: CONFIGS[name] for name in ("batchtopk", "matryoshka")},
        holdout=[{"a": superposition(4000, seed=7)}],
    )
    assert result.metrics["l0"].between(3.4, 4.6).all()


def test_tied_weights_stay_tied() -> None:
    sae = train_saes(batches(), {"a": CONFIGS["relu_tied"]}).by_site()["layers.0"]
    assert torch.equal(sae.W_enc, sae.W_dec.T)


@pytest.mark.parametrize(
    ("values", "revival"),
    [
        ({"architecture": "topk", "k": 2}, {"aux_coefficient": 1 / 32, "resample": True}),
        ({"architecture": "batchtopk", "k": 2}, {"aux_coefficient": 1 / 32, "resample": True}),
        ({"architecture": "jumprelu", "l0_coefficient": 2e-3}, {"aux_coefficient": 0.0, "resample": True}),
        ({"architecture": "relu", "l1_coefficient": 5e-3}, {"resample": True}),
        ({"architecture": "relu_tied", "l1_coefficient": 5e-3}, {"resample": True}),
    ],
    ids=lambda v: v.get("architecture", ""),
)
def test_dead_features_come_back(values: dict[str, Any], revival: dict[str, Any]) -> None:
    shares = {}
    for revived in (True, False):
        switches = revival if revived else {name: type(value)(0) for name, value in revival.items()}
        extra = {"dead_after_tokens": 1500, "expansion_factor": 8, "learning_rate": 3e-3}
        config = parse_sae_config({**values, **switches, **extra})
        shares[revived] = dead_share_after(superposition(4000), config, bias=-8.0)
    assert shares[False] >= 0.5
    assert shares[True] < shares[False] / 2


def test_auxk_alone_brings_back_what_it_can_reach() -> None:
    """Features that are positive somewhere but never among the k largest."""
    shares = {}
    for coefficient in (1 / 32, 0.0):
        config = parse_sae_config(
            {
                "architecture": "topk",
                "k": 2,
                "aux_coefficient": coefficient,
                "resample": False,
                "dead_after_tokens": 1500,
                "expansion_factor": 8,
                "learning_rate": 3e-3,
            }
        )
        shares[coefficient] = dead_share_after(superposition(4000), config, bias=-2.5)
    assert shares[1 / 32] < 0.75 * shares[0.0]


def dead_share_after(x: torch.Tensor, config: Any, bias: float) -> float:
    """Train from a start where half the features have this bias; share of features that are dead at the end."""
    scaling = estimate_scaling(x, "toy")
    learner = Learner(SaeKey("toy", "a"), config.resolve(D_IN), scaling, n_steps=200, seed=0)
    with torch.no_grad():
        learner.params["b_enc"][::2] = bias
    z = scaling.apply(x)
    for step in range(200):
        learner.step(z[torch.arange(step * 200, (step + 1) * 200) % 4000])
    return float(learner.dead().float().mean())


def test_gradient_is_clipped() -> None:
    gradients = [torch.full((2, 3, 1), 2.0), torch.full((2, 1), 2.0)]
    gradients[0][1] /= 100
    gradients[1][1] /= 100
    for largest in (1.0, 5.0):
        clip_(gradients, largest)
        norms = torch.cat([g.flatten(1) for g in gradients], dim=1).norm(dim=1)
        torch.testing.assert_close(norms, torch.tensor([1.0, 0.04]))


def test_short_last_batch_and_a_batch_longer_than_the_data() -> None:
    result = train_saes(batches(n=130, size=128, epochs=1), {name: CONFIGS[name] for name in NAMES})
    assert result.steps_done == 2
    assert result.history["tokens"].max() == 130
    result = train_saes(batches(n=20, size=128, epochs=3), {"a": TopKConfig(k=4)})
    assert result.steps_done == 3


def test_activations_that_end_early_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = train_saes(iter(batches()), {"a": TopKConfig(k=4)}, n_steps=100)
    assert result.steps_done == 16
    assert "ended after 16 of the 100 steps" in caplog.text


FEW = ReluConfig(l1_coefficient=1e-4, expansion_factor=4, learning_rate=0.1, decay_fraction=0.9)
"""Forty tokens over and over: what it learns of them is soon no longer true of others."""


def few() -> ArrayBatches:
    return ArrayBatches({"layers.0": superposition(40)}, 40, seed=3, epochs=400)


def test_an_autoencoder_stops_where_its_held_out_loss_rises_and_goes_back_to_the_lowest() -> None:
    others = superposition(500, seed=9)

    def trained(patience: int | None) -> tuple[SparseAutoencoder, int]:
        rule = None if patience is None else EarlyStopping(every_fraction=0.05, patience=patience)
        holdout = [{"layers.0": others}]
        result = train_saes(few(), {"a": FEW}, holdout=holdout, early_stopping=rule, log_every=1)
        return result.by_site()["layers.0"], int(result.history["step"].max())

    (soon, first), (later, second), (never, last) = map(trained, (1, 2, None))
    assert (second - first, last) == (20, 400)
    assert second < last
    assert same(soon, later), "both are as they were where the loss was lowest"
    of_stopped, of_whole = (evaluate_sae(sae, [others]).summary["mse"] for sae in (later, never))
    assert of_stopped < of_whole
    with pytest.raises(ConfigurationError, match="held-out"):
        train_saes(few(), {"a": FEW}, early_stopping=EarlyStopping())


@pytest.mark.parametrize(
    ("more", "settled"),
    [
        ({"sparsity_warmup_fraction": 0.6}, 0.6),
        ({"start_factor": 2.0, "prune_fraction": 0.7}, 0.7),
        ({"decay_fraction": 0.2}, 0.8),
    ],
    ids=str,
)
def test_none_stops_before_price_features_and_rate_have_settled(more: dict[str, Any], settled: float) -> None:
    rule = EarlyStopping(every_fraction=0.05, patience=1, min_gain=0.99)  # nothing is a gain but the first
    result = train_saes(
        few(), {"a": FEW.model_copy(update=more)}, holdout=[{"layers.0": superposition(100)}],
        early_stopping=rule, log_every=1,
    )  # fmt: skip
    assert settled * 400 < result.history["step"].max() <= (settled + 0.1) * 400


def test_where_the_held_out_loss_falls_to_the_end_nothing_changes() -> None:
    configs = {**CONFIGS, "pruned": ReluConfig(expansion_factor=2, start_factor=2.0)}
    holdout = [{site: rows[:300] for site, rows in batches().arrays.items()}]
    plain = train_saes(batches(epochs=6), configs, holdout=holdout)
    watched = train_saes(batches(epochs=6), configs, holdout=holdout, early_stopping=EarlyStopping())
    assert watched.steps_done == plain.steps_done
    assert all(same(sae, watched.saes[key]) for key, sae in plain.saes.items())


# Many small dictionaries at once ---------------------------------------------------------------------------------


def test_a_step_of_a_stack_is_the_step_of_each() -> None:
    """Seeds, sites and prices of one shape: gradients to the bit, and as autograd has them."""
    x = {"layers.0": superposition(600), "layers.1": 10 * superposition(600, seed=1)}
    scalings = {site: estimate_scaling(values, site) for site, values in x.items()}

    def learners() -> list[Learner]:
        return [
            Learner(
                SaeKey(site, "a", seed), ReluConfig(l1_coefficient=price).resolve(D_IN), scalings[site], 20, 0
            )
            for site in x
            for seed in range(2)
            for price in (1e-3, 5e-3)
        ]

    together, alone = learners(), learners()
    (stack,) = stacks_of(together, 1)
    for step in range(6):
        rows = slice(step * 100, step * 100 + 100)
        z = stack.scaled([x[one.key.site][rows] for one in together])
        found = stack.step(z, see=lambda _, result, __: result)
        for i, one in enumerate(alone):
            expected = one.objective.autograd_gradients(one.params, z[i], one.context())
            for name, gradient in one.step(z[i]).gradients.items():
                assert torch.equal(found[i].gradients[name], gradient)
            torch.testing.assert_close(found[i].loss, expected.loss)
            assert torch.equal(found[i].fired, expected.fired)
            # Adam takes what does not fill a vector of the processor apart, in another rounding.
            for name, value in one.params.items():
                torch.testing.assert_close(value, together[i].params[name], rtol=1e-6, atol=1e-6)
            with torch.no_grad():
                for name, value in one.params.items():
                    value.copy_(together[i].params[name])
                    for own, other in zip(one.moments[name], together[i].moments[name], strict=True):
                        own.copy_(other)


def test_features_that_are_too_many_are_let_go() -> None:
    config = ReluConfig(expansion_factor=4 / 3, start_factor=4.0, prune_fraction=0.5, learning_rate=1e-2)
    together = train_saes(batches(), {"a": config}, n_seeds=2)
    assert {sae.d_sae for sae in together.saes.values()} == {16}
    alone = train_saes(batches(), {"a": config}, sites=["layers.1"]).by_site()["layers.1"]
    for name, value in together.by_site()["layers.1"].named_parameters():
        torch.testing.assert_close(alone.get_parameter(name), value, rtol=1e-4, atol=1e-4)
    x = superposition(400)
    plain = config.model_copy(update={"stretch": False}).resolve(D_IN)
    learner = Learner(SaeKey("a", "a"), plain, estimate_scaling(x, "a"), 20, 0)
    before = learner.params["decoder"].clone()
    z = learner.scaling.apply(x)
    codes = learner.objective.forward(learner.params, z, learner.context()).codes
    learner.prune(z)
    carried = codes.square().sum(0)
    kept = carried.topk(16).indices.sort().values
    assert torch.equal(learner.params["decoder"], before[kept])
    assert torch.equal(learner.start, before[kept])


@pytest.mark.parametrize("name", ["relu", "relu_tied", "topk"])
def test_metrics_say_how_far_features_went_from_their_start_and_what_chance_gives(name: str) -> None:
    result = train_saes(batches(), {"a": CONFIGS[name]}, n_seeds=2, holdout=batches())
    key = SaeKey("layers.0", "a", 1)
    sae, start, living = result.saes[key], result.starts[key], result.evaluations[key].features["alive"]
    turned = torch.cosine_similarity(sae.W_dec, start, dim=1).detach()[torch.tensor(living.to_numpy())]
    row = result.metrics.set_index(["site", "seed"]).loc[("layers.0", 1)]
    assert row["start_cosine"] == pytest.approx(float(turned.mean()), abs=1e-5)
    assert 0.0 < row["start_cosine"] < 1.0
    other = result.starts[SaeKey("layers.0", "a", 0)]
    matched = matched_cosines(start.numpy(), other.numpy()).mean()
    assert row["untrained_cosine"] == pytest.approx(matched)
    assert row["chance_cosine"] == pytest.approx(random_match(sae.d_sae, D_IN))
    alone = train_saes(batches(), {"a": CONFIGS[name]}, holdout=batches()).metrics
    assert alone["untrained_cosine"].isna().all()


def test_a_restarted_feature_has_a_new_start() -> None:
    x = superposition(4000)
    config = TopKConfig(k=2, dead_after_tokens=500, aux_coefficient=0.0).resolve(D_IN)
    learner = Learner(SaeKey("a", "a"), config, estimate_scaling(x, "a"), 200, 0)
    first = learner.start.clone()
    learner.params["b_enc"][:5] = -8.0
    z = learner.scaling.apply(x)
    for part in z.split(250)[:3]:
        learner.step(part)
    changed = (learner.start != first).any(1)
    assert changed[:5].all()
    assert not changed.all()


def test_the_shrinkage_of_codes_is_undone() -> None:
    """Least squares: no other factors reconstruct the sample better, active features and directions stay."""
    x = superposition(2000)
    config = ReluConfig(l1_coefficient=0.01, learning_rate=1e-2).resolve(D_IN)
    learner = Learner(SaeKey("a", "a"), config, estimate_scaling(x, "a"), 200, 0)
    z = learner.scaling.apply(x)
    for step in range(200):
        learner.step(z[torch.arange(step * 128, (step + 1) * 128) % 2000])
    stretched = learner.export(z)
    learner.objective = ReluObjective(config.model_copy(update={"stretch": False}))
    plain = learner.export(z)
    with torch.no_grad():
        torch.testing.assert_close(plain.W_dec, stretched.W_dec)
        assert ((plain.encode(x) > 0) == (stretched.encode(x) > 0)).float().mean() > 0.999
        before, after = (float((sae(x) - x).square().sum()) for sae in (plain, stretched))
        assert after < 0.95 * before
        for factor in (0.97, 1.03):
            codes = stretched.encode(x)
            codes[:, int(codes.square().sum(0).argmax())] *= factor
            assert float((stretched.decode(codes) - x).square().sum()) > after


# Errors, before time is spent ------------------------------------------------------------------------------------


def bad(value: float) -> dict[str, torch.Tensor]:
    x = superposition(300)
    x[7, 5] = value
    return {"layers.0": superposition(300), "layers.1": x}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite(value: float) -> None:
    with pytest.raises(DataError, match=r"site layers.1 are not finite .* row 7, dimension 5"):
        train_saes(ArrayBatches(bad(value), 128), {"a": TopKConfig(k=4)})


def test_activations_that_are_not_finite_later_on() -> None:
    stream = [{"s": superposition(100)}, {"s": bad(float("nan"))["layers.1"]}]
    with pytest.raises(DataError, match="site s became nan at step 1"):
        train_saes(stream, {"a": TopKConfig(k=4)}, calibration_tokens=100)


def test_constant_site() -> None:
    constant = torch.full((300, D_IN), 0.1)
    with pytest.raises(DataError, match=r"Site layers.1 has constant activations"):
        train_saes(
            ArrayBatches({"layers.0": superposition(300), "layers.1": constant}, 128), {"a": TopKConfig(k=4)}
        )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TopKConfig(k=4, d_in=13), r"d_in = 13 but the activations of site layers.0 are 12 wide"),
        (TopKConfig(k=49), r"k = 49 .* d_sae = 48 of site layers.0"),
        (
            parse_sae_config({"architecture": "matryoshka", "k": 2, "prefix_shares": (0.01, 1.0)}),
            "must grow",
        ),
    ],
)
def test_configurations_that_do_not_fit(config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train_saes(batches(), {"a": config})


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "topk", "expansion_factor": 0},
        {"architecture": "topk", "expansion_factor": 65},
        {"architecture": "topk", "k": 0},
        {"architecture": "relu", "l1_coefficient": 0},
        {"architecture": "relu", "k": 3},
        {"architecture": "telescopic"},
        {"k": 3},
        {},
    ],
)
def test_configurations_out_of_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not valid"):
        parse_sae_config(values)


def test_nothing_to_train_on() -> None:
    config = {"a": ReluConfig()}
    with pytest.raises(DataError, match="no activations"):
        train_saes([], config)
    with pytest.raises(DataError, match="no activations"):
        train_saes(iter(()), config, n_steps=3)
    with pytest.raises(ConfigurationError, match="n_steps"):
        train_saes(iter(batches()), config)
    with pytest.raises(ConfigurationError, match="only 16 batches"):
        train_saes(batches(), config, n_steps=17)
    with pytest.raises(ConfigurationError, match="name at least one"):
        train_saes(batches(), {})
    with pytest.raises(DataError, match=r"layers.9"):
        train_saes(batches(), config, sites=["layers.9"])
    with pytest.raises(DataError, match="lacks site b"):
        train_saes(
            [{"a": superposition(9), "b": superposition(9)}, {"a": superposition(9)}],
            config,
            calibration_tokens=1,
        )
    with pytest.raises(DataError, match="same number of tokens"):
        ArrayBatches({"a": superposition(9), "b": superposition(8)}, 4)


# Resume ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(step: int) -> Iterator[dict[str, torch.Tensor]]:
    for position, batch in enumerate(batches()):
        if position == step:
            raise Killed
        yield batch


def run_killed(step: int, scratch: Scratch, every: dict[str, Any]) -> None:
    with pytest.raises(Killed):
        train_saes(
            killed_at(step), CONFIGS, n_steps=16, scratch=scratch, calibration_tokens=1, log_every=3, **every
        )


def test_killed_runs_come_out_the_same(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_steps": 16, "calibration_tokens": 1, "log_every": 3}
    undisturbed = train_saes(batches(), CONFIGS, **settings)
    rng = torch.Generator().manual_seed(0)
    for step in torch.randperm(15, generator=rng)[:10].tolist():
        scratch = Scratch(tmp_path / str(step), "toy", every_steps=1 + step % 3)
        run_killed(step, scratch, {})
        run_killed(min(15, step + 2), scratch, {})
        finished = train_saes(batches(), CONFIGS, scratch=scratch, **settings)
        for key, sae in undisturbed.saes.items():
            assert same(sae, finished.saes[key]), (step, key)
        pd.testing.assert_frame_equal(undisturbed.history, finished.history)
        assert not any((tmp_path / str(step)).rglob("*.safetensors"))


def test_a_killed_run_remembers_where_its_held_out_loss_was_lowest(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "configs": {"a": FEW}, "n_steps": 400, "holdout": [{"layers.0": superposition(500, seed=9)}],
        "early_stopping": EarlyStopping(every_fraction=0.05), "calibration_tokens": 1,
    }  # fmt: skip
    undisturbed = train_saes(few(), **given)

    def killed_after_the_lowest() -> Iterator[dict[str, torch.Tensor]]:
        for position, batch in enumerate(few()):
            if position == undisturbed.steps_done - 10:
                raise Killed
            yield batch

    scratch = Scratch(tmp_path, "toy", every_steps=5)
    with pytest.raises(Killed):
        train_saes(killed_after_the_lowest(), scratch=scratch, **given)
    finished = train_saes(few(), scratch=scratch, **given)
    assert finished.steps_done == undisturbed.steps_done
    assert same(undisturbed.by_site()["layers.0"], finished.by_site()["layers.0"])


def test_sigkill_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_trainings.py")
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["found"] == [told["expected"]] * 10
    assert told["killed"] == 10
    assert told["states_left"] >= 6, "most were killed after a state had been saved"


def test_killed_in_the_middle_of_writing_a_state(tmp_path: Path) -> None:
    # The kernel kills who writes beyond the limit, also in the middle of safetensors' own code.
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from killed_trainings import train
train(Path({str(tmp_path / "first")!r}), None)  # torch writes files of its own when it is first used
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
train(Path({str(tmp_path / "killed")!r}), None)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGXFSZ, run.stderr
    assert any(path.is_file() for path in (tmp_path / "killed").rglob("*")), "something was left half-written"
    assert not list(tmp_path.rglob("state.safetensors"))
    train(tmp_path / "killed", None)
    assert not any((tmp_path / "killed").iterdir())


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    scratch = Scratch(tmp_path / "file", "toy", every_steps=1)
    with pytest.raises(StoreError, match="another folder, and run again"):
        train_saes(batches(), CONFIGS, n_steps=3, scratch=scratch, calibration_tokens=1)


def test_a_state_belongs_to_its_inputs(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "toy", every_steps=1)
    run_killed(9, scratch, {})
    (state,) = tmp_path.rglob("state.safetensors")
    for other in ({"seed": 1}, {"n_steps": 15}, {"scratch": Scratch(tmp_path, "other data", 1)}):
        arguments: dict[str, Any] = {
            "n_steps": 16,
            "scratch": scratch,
            "calibration_tokens": 1,
            "log_every": 3,
        }
        train_saes(batches(), CONFIGS, **{**arguments, **other})
        assert state.exists()
    state.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="delete it"):
        train_saes(batches(), CONFIGS, n_steps=16, scratch=scratch, calibration_tokens=1, log_every=3)


def test_history_columns_are_the_documented_ones() -> None:
    documented = training_module.TrainingResult.__doc__ or ""
    assert all(f"``{column}``" in documented for column in training_module.HISTORY_COLUMNS)
