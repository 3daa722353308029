"""Baselines, blocks, estimators and predictions side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal.alignment import align_table
from helix_sae.causal.baselines import BASELINES, fit_baselines
from helix_sae.causal.comparison import (
    _log_area,
    by_edit_position,
    compare_blocks,
    compare_dictionaries,
    estimator_agreement,
    prediction_agreement,
    verdict,
)
from helix_sae.causal.curves import MIB_SHARES, ceilings
from helix_sae.causal.effects import effects, screen, stamp
from helix_sae.causal.experiment import Experiment
from helix_sae.errors import ConfigurationError
from helix_sae.sae import InputScaling, TopKConfig, random_autoencoder

WIDTH = 6
SITES = ("layers.0.mixer", "layers.1")


@pytest.fixture(scope="module")
def activations():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(WIDTH, WIDTH))
    return {site: (rng.laplace(size=(3000, WIDTH)) @ mixing + 1.0).astype(np.float32) for site in SITES}


@pytest.fixture(scope="module")
def autoencoders():
    config = TopKConfig(k=3, expansion_factor=2).resolve(WIDTH)
    scaling = InputScaling(torch.zeros(WIDTH), 1.0)
    return {site: random_autoencoder(config, scaling, seed) for seed, site in enumerate(SITES)}


@pytest.fixture(scope="module")
def baselines(activations, autoencoders):
    return fit_baselines(activations, autoencoders)


def test_baselines_have_the_same_interface(baselines, activations):
    assert set(baselines) == set(BASELINES)
    x = torch.from_numpy(activations[SITES[0]][:50])
    for name, dictionaries in baselines.items():
        dictionary = dictionaries[SITES[0]]
        codes = dictionary.encode(x)
        assert dictionary.decode(codes).shape == x.shape
        if name != "random_sae":  # the others are complete: nothing is left over
            torch.testing.assert_close(dictionary.decode(codes), x, atol=1e-4, rtol=1e-4)
    rectified = baselines["pca_rectified"][SITES[0]].encode(x)
    assert rectified.shape[1] == 2 * WIDTH
    assert (rectified >= 0).all()
    rows = baselines["random_directions"][SITES[0]].W_dec
    torch.testing.assert_close(rows @ rows.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    assert baselines["random_sae"][SITES[0]].d_sae == 2 * WIDTH


def test_principal_components_are_uncorrelated_and_ordered(baselines, activations):
    codes = baselines["pca"][SITES[0]].encode(torch.from_numpy(activations[SITES[0]])).numpy()
    covariance = np.cov(codes.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * covariance[0, 0]
    assert (np.diff(np.diag(covariance)) <= 1e-6).all()


def test_independent_components_find_the_sources(baselines, activations):
    """Laplace sources mixed linearly come apart: codes are far from Gaussian, unlike principal components."""
    x = torch.from_numpy(activations[SITES[0]])

    def kurtosis(name: str) -> float:
        codes = baselines[name][SITES[0]].encode(x).double()
        z = (codes - codes.mean(0)) / codes.std(0)
        return float((z**4).mean())

    assert kurtosis("ica") > kurtosis("pca") + 0.5


def test_a_direction_without_variance_is_left_out(autoencoders):
    rng = np.random.default_rng(0)
    flat = {site: rng.normal(size=(500, WIDTH)).astype(np.float32) for site in SITES}
    for x in flat.values():
        x[:, 2] = x[:, 0]
    fitted = fit_baselines(flat, autoencoders, names=["pca", "ica"])
    x = torch.from_numpy(flat[SITES[0]])
    for name in ("pca", "ica"):
        codes = fitted[name][SITES[0]].encode(x)
        assert codes.shape[1] == WIDTH - 1
        torch.testing.assert_close(fitted[name][SITES[0]].decode(codes), x, atol=1e-3, rtol=1e-3)


def test_unknown_baselines_and_missing_sites_are_errors(activations, autoencoders):
    with pytest.raises(ConfigurationError, match="Unknown baselines"):
        fit_baselines(activations, autoencoders, names=["umap"])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match=r"layers\.1"):
        fit_baselines({SITES[0]: activations[SITES[0]]}, autoencoders, names=["pca"])


@pytest.fixture(scope="module")
def setting():
    table = pair_table(24, np.random.default_rng(0), n_clusters=8)
    table["split"] = np.where(table["cluster"].str[1:].astype(int) % 2 == 0, "discovery", "validation")
    model, probe = random_chain(WIDTH), LinearReadOut(torch.linspace(-1, 2, WIDTH))
    return model, probe, align_table(table), table


def test_dictionaries_are_compared_with_one_budget(setting, baselines, autoencoders):
    model, probe, pairs, table = setting
    exp = Experiment(model, autoencoders, probe, pairs)
    candidates = {n: baselines[n] for n in ("neurons", "random_directions")}
    found = exp.compare(candidates, table, counts=(1, 2, 4))
    summary = found.summary.set_index(["dictionary", "ranking"])
    assert set(summary.index) == {
        ("sae", "exact"),
        ("sae", "atp"),
        ("sae", "difference"),
        ("sae", "random"),
        ("neurons", "exact"),
        ("random_directions", "exact"),
    }
    # A complete orthonormal dictionary recovers everything with all of its nodes; so does any other of its kind.
    assert summary.loc[("neurons", "exact"), "reached"] == pytest.approx(1.0, abs=1e-4)
    assert summary.loc[("random_directions", "exact"), "reached"] == pytest.approx(1.0, abs=1e-4)
    for measure in ("cpr", "cmd"):
        behind = summary.loc[("sae", "exact"), measure] - summary.loc[("neurons", "exact"), measure]
        assert summary.loc[("neurons", "exact"), f"{measure}_lead"] == pytest.approx(behind)
        row = summary.loc[("neurons", "exact")]
        assert row[f"{measure}_lead_low"] <= row[f"{measure}_lead"] <= row[f"{measure}_lead_high"]
    own = summary.loc[("sae", "exact")]
    assert own["lead"] == own["lead_low"] == own["lead_high"] == 0.0
    assert (summary["cpr_low"] <= summary["cpr"]).all()
    assert (summary["cmd"] >= 0).all()
    assert (found.curves["n_pairs"] == 12).all()
    assert set(found.curves["curve"]) == {"sufficiency", "necessity"}
    # A backward run counts as two; an exact effect is one pass for each pair and feature that differs.
    assert summary.loc[("sae", "atp"), "passes"] == 4
    assert summary.loc[("sae", "exact"), "passes"] > 4
    words = verdict(found.summary)
    assert len(words) == 5
    assert any("neurons" in w for w in words)
    again = compare_dictionaries(exp, candidates, table, counts=(1, 2, 4))
    assert again.summary.equals(found.summary)
    fewer = exp.compare(candidates, table, counts=(1, 2, 4), necessity="reference")
    # Other sets share the passes, which moves the last digits.
    pd.testing.assert_frame_equal(fewer.summary, found.summary, atol=1e-4)
    needed = fewer.curves[fewer.curves["curve"] == "necessity"]
    assert set(zip(needed["dictionary"], needed["ranking"], strict=True)) == {("sae", "exact")}


def test_overshooting_counts_like_falling_short():
    """As it does in CMD: twice the effect is no better than none."""
    f = np.zeros(len(MIB_SHARES) + 4)
    f[len(MIB_SHARES) :] = [0.5, 1.0, 1.5, 2.0]
    assert _log_area(f) == pytest.approx((0.5 + 1.0 + 0.5 + 0.0) / 4)


def test_candidates_that_do_not_fit_are_refused(setting, autoencoders):
    model, probe, pairs, table = setting
    exp = Experiment(model, autoencoders, probe, pairs)
    with pytest.raises(ConfigurationError, match="name of the reference"):
        exp.compare({"sae": autoencoders}, table)
    with pytest.raises(ConfigurationError, match="other sites"):
        exp.compare({"one": {SITES[0]: autoencoders[SITES[0]]}}, table)


def test_agreement_is_one_with_itself_and_says_when_it_is_screened(setting):
    model, probe, pairs, _ = setting
    saes = {site: RandomSae(WIDTH, 9, seed) for seed, site in enumerate(SITES)}
    exact = effects(Experiment(model, saes, probe, pairs))
    patched = effects(Experiment(model, saes, probe, pairs), start="patched")
    atp, ig = (effects(Experiment(model, saes, probe, pairs), m) for m in ("atp", "ig"))
    signs = np.sign(exact.y_target - exact.y_source)
    own = estimator_agreement(exact, {"itself": exact}, signs)
    np.testing.assert_allclose(own[["spearman", "top_overlap", "sign_agreement"]], 1.0, atol=1e-12)
    rows = estimator_agreement(exact, {"atp": atp, "ig": ig}, signs, exact_patched=patched)
    assert rows.loc[rows["estimator"] == "ig", "against"].str.startswith("mean").all()
    assert not rows["screened"].any()
    assert (rows["spearman"] > 0.5).all()
    screened = effects(Experiment(model, saes, probe, pairs), nodes=screen(atp, 3))
    rows = estimator_agreement(screened, {"atp": atp}, signs)
    assert rows["screened"].all()
    assert (rows["n_nodes"] <= 4).all()


def test_blocks_share_the_effect_between_them(setting):
    model, probe, pairs, table = setting
    saes = {site: RandomSae(WIDTH, 9, seed) for seed, site in enumerate(SITES)}
    found = effects(Experiment(model, saes, probe, pairs), "atp")
    limits = ceilings(Experiment(model, saes, probe, pairs), table["cluster"].to_numpy())
    rows = compare_blocks(found, table, limits)
    assert rows["site"].tolist() == list(SITES)
    assert rows["share"].sum() == pytest.approx(1.0)
    assert ((rows["effective_features"] >= 1) & (rows["effective_features"] <= 9)).all()


def test_predicted_and_known_differences():
    table = pair_table(30, np.random.default_rng(0), n_clusters=10)
    table.loc[:2, "is_sham"] = True
    rows = prediction_agreement(2.0 * table["difference"].to_numpy(), table).set_index("split")
    assert (rows["spearman"] == 1.0).all()
    assert (rows["sign_agreement"] == 1.0).all()
    assert rows["n_pairs"].sum() == 27
    assert (rows["n_signed"] == rows["n_pairs"]).all()


def test_signs_agree_among_the_pairs_that_have_one():
    table = pair_table(30, np.random.default_rng(0), n_clusters=10).assign(split="validation")
    predicted = table["difference"].to_numpy().copy()
    table.loc[:9, "difference"] = 0.0  # as of decoys, whatever is predicted for them
    predicted[10:15] *= -1.0
    (row,) = prediction_agreement(predicted, table).to_dict("records")
    assert (row["n_pairs"], row["n_signed"]) == (30, 20)
    assert row["sign_agreement"] == 15 / 20
    (row,) = prediction_agreement(predicted, table.assign(difference=0.0)).to_dict("records")
    assert row["n_signed"] == 0
    assert np.isnan(row["sign_agreement"])


def test_other_start_and_direction_are_compared_too(setting):
    """In a linear chain both directions and both starts give one effect; in a gated one they need not."""
    _, probe, pairs, _ = setting
    model = ToyChain(torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(2)), [])
    saes = {"embeddings": LinearDictionary(torch.eye(WIDTH))}
    exact = effects(Experiment(model, saes, probe, pairs))
    rows = estimator_agreement(
        exact,
        {"ig": effects(Experiment(model, saes, probe, pairs), "ig")},
        np.sign(exact.y_target - exact.y_source),
        exact_patched=effects(Experiment(model, saes, probe, pairs), start="patched"),
        exact_reversed=effects(Experiment(model, saes, probe, pairs, direction="target_to_source")),
    ).set_index("estimator")
    assert set(rows.index) == {"ig", "exact, other direction"}
    assert rows.loc["ig", "against"] == "mean of exact from source and from patched"
    assert (rows[["spearman", "top_overlap", "sign_agreement"]] == 1.0).all(axis=None)
    assert (rows["n_pairs"] == len(pairs)).all()
    some = exact.rows(np.array([4, 1]))
    np.testing.assert_array_equal(some.values["embeddings"], exact.values["embeddings"][[4, 1]])
    assert some.y_source.tolist() == exact.y_source[[4, 1]].tolist()


def test_tables_say_what_their_numbers_depend_on(setting):
    model, probe, pairs, _ = setting
    saes = {site: RandomSae(WIDTH, 9, seed) for seed, site in enumerate(SITES)}
    found = effects(Experiment(model, saes, probe, pairs, positions="tokens"), "atp")
    rows = stamp(pd.DataFrame({"site": [*SITES, "all"]}), found.metadata, estimator="patch of a set")
    assert rows["dictionary_hash"].nunique() == 3
    assert rows["dictionary_hash"].iloc[0] == found.metadata["dictionaries"][SITES[0]]
    assert (rows["positions"] == "tokens").all()
    assert (rows["estimator"] == "patch of a set").all()
    assert rows["model"].iloc[0] == "toy"
    assert (
        stamp(pd.DataFrame({"x": [1]}), found.metadata)["dictionary_hash"].iloc[0]
        == rows["dictionary_hash"].iloc[2]
    )
    with pytest.raises(ConfigurationError, match="dictionary_hash"):
        stamp(rows, found.metadata)


def test_late_edits_are_kept_apart(setting):
    model, probe, pairs, table = setting
    found = effects(Experiment(model, {SITES[1]: RandomSae(WIDTH, 9, 0)}, probe, pairs))
    rows = by_edit_position(found, pairs, table, n_strata=3)
    assert rows["n_pairs"].sum() == len(pairs)
    assert (rows["following_high"].diff().dropna() > 0).all()
    assert (rows["feature_effect_low"] <= rows["feature_effect"]).all()
    assert (rows["feature_effect"] <= rows["feature_effect_high"]).all()
    mixed = table.assign(has_indel=np.arange(len(table)) < 6)
    apart = by_edit_position(found, pairs, mixed, n_strata=3)
    assert apart.groupby("has_indel")["n_pairs"].sum().to_dict() == {False: len(pairs) - 6, True: 6}
    real = table.assign(is_sham=np.arange(len(table)) < 10)
    assert by_edit_position(found, pairs, real, n_strata=3)["n_pairs"].sum() == len(pairs) - 10
