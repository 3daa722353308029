"""Curves, ceilings, areas, minimality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal.alignment import align_table
from helix_sae.causal.curves import (
    area,
    ceilings,
    circuit_quality,
    curve_table,
    curves,
    faithfulness,
    log_spaced,
    minimality,
    random_ranking,
    rank_nodes,
    share_counts,
)
from helix_sae.causal.effects import effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import attribution
from helix_sae.errors import ConfigurationError

WIDTH = 6
SITES = ("layers.0.mixer", "layers.1")


@pytest.fixture
def table():
    return pair_table(8, np.random.default_rng(0))


@pytest.fixture
def setting(table):
    model = random_chain(WIDTH)
    probe = LinearReadOut(torch.linspace(-1, 2, WIDTH))
    pairs = align_table(table)
    saes = {site: RandomSae(WIDTH, 9, seed) for seed, site in enumerate(SITES)}
    found = effects(Experiment(model, saes, probe, pairs), "ig")
    scores = attribution(found, np.sign(found.y_target - found.y_source))
    return model, saes, probe, pairs, scores


def test_ranking_takes_the_largest_first_and_leaves_errors_out(setting):
    scores = setting[-1]
    ranking = rank_nodes(scores)
    assert len(ranking.node) == 18
    assert (np.diff(ranking.score) <= 0).all()
    top = ranking.first(5)
    assert sum(chosen.sum() for chosen in top.values()) == 5
    assert not any(chosen[-1] for chosen in top.values())
    left = ranking.without_first(5)
    for site in SITES:
        np.testing.assert_array_equal(left[site], ~top[site])
    assert len(rank_nodes(scores, include_errors=True).node) == 20


def test_curves_begin_and_end_where_they_must(setting):
    model, saes, probe, pairs, scores = setting
    with_errors = rank_nodes(scores, include_errors=True)
    enough = curves(Experiment(model, saes, probe, pairs), with_errors)["sufficiency"]
    np.testing.assert_allclose(faithfulness(enough.outcome, enough.y_patched)[[0, -1]], [0.0, 1.0], atol=1e-5)
    needed = curves(Experiment(model, saes, probe, pairs), with_errors)["necessity"]
    np.testing.assert_allclose(faithfulness(needed.outcome, needed.y_patched)[[0, -1]], [1.0, 0.0], atol=1e-5)
    # Without the errors something stays behind at the end.
    features = curves(Experiment(model, saes, probe, pairs), rank_nodes(scores))["sufficiency"]
    assert abs(faithfulness(features.outcome, features.y_patched)[-1] - 1.0) > 1e-3


def test_faithfulness_is_a_ratio_of_sums(setting):
    model, saes, probe, pairs, scores = setting
    found = curves(Experiment(model, saes, probe, pairs), rank_nodes(scores), k=[3])["sufficiency"]
    out = found.outcome
    top = bottom = 0.0
    for i in range(len(pairs)):
        sign = np.sign(out.y_target[i] - out.y_source[i])
        top += sign * (out.y[0, i] - out.y_source[i])
        bottom += sign * (found.y_patched[i] - out.y_source[i])
    assert faithfulness(out, found.y_patched)[0] == pytest.approx(top / bottom)


def test_orthonormal_and_linear_faithfulness_is_the_share_of_the_effect(table):
    """With a linear read-out every point of the curve can be written down."""
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    model = ToyChain(torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(2)), [])
    probe, pairs = LinearReadOut(basis[0] + basis[3]), align_table(table)
    dictionary = {"embeddings": LinearDictionary(basis)}
    found = effects(Experiment(model, dictionary, probe, pairs))
    sign = np.sign(found.y_target - found.y_source)
    scores = attribution(found, sign)
    points = curves(Experiment(model, dictionary, probe, pairs), rank_nodes(scores))["sufficiency"]
    share = np.sort(scores["embeddings"][:-1])[::-1].cumsum() / scores["embeddings"].sum()
    expected = np.concatenate([[0.0], share])[points.k]
    np.testing.assert_allclose(faithfulness(points.outcome, points.y_patched), expected, atol=1e-5)


def test_table_has_intervals_that_hold_the_estimate(setting, table):
    model, saes, probe, pairs, scores = setting
    found = curves(Experiment(model, saes, probe, pairs), rank_nodes(scores))["sufficiency"]
    rows = curve_table(found, table["cluster"].to_numpy(), dictionary="sae")
    assert (rows["dictionary"] == "sae").all()
    inside = (rows["low"] <= rows["faithfulness"] + 1e-9) & (rows["faithfulness"] <= rows["high"] + 1e-9)
    assert inside.all()
    assert rows["edit_magnitude"].iloc[0] == 0.0
    assert (rows["edit_magnitude"].iloc[1:] > 0).all()
    assert rows["share"].iloc[-1] == 1.0


def test_ceilings_grow_with_what_is_patched(setting, table):
    model, saes, probe, pairs, _ = setting
    saes = {"embeddings": LinearDictionary(torch.eye(WIDTH)), **saes}
    rows = ceilings(Experiment(model, saes, probe, pairs), table["cluster"].to_numpy()).set_index(
        ["site", "nodes"]
    )
    assert rows.loc[("all", "features and error"), "recovered"] == pytest.approx(1.0, abs=1e-5)
    assert rows.loc[("embeddings", "features"), "recovered"] == pytest.approx(1.0, abs=1e-5)
    # The mixer's output is bypassed by the residual stream: alone it cannot bring everything about.
    assert abs(rows.loc[("layers.0.mixer", "features and error"), "recovered"] - 1.0) > 1e-3


def test_minimality_names_the_idle_node(table):
    model = ToyChain(torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(2)), [])
    probe, pairs = LinearReadOut(torch.eye(WIDTH)[1]), align_table(table)
    nodes = {"embeddings": np.array([True, True, False, False, False, False, False])}
    rows = minimality(
        Experiment(model, {"embeddings": LinearDictionary(torch.eye(WIDTH))}, probe, pairs), nodes
    )
    assert rows["feature"].tolist() == ["1", "0"]
    np.testing.assert_allclose(rows["contribution"], [1.0, 0.0], atol=1e-6)
    with pytest.raises(ConfigurationError, match="no node"):
        minimality(
            Experiment(model, {"embeddings": LinearDictionary(torch.eye(WIDTH))}, probe, pairs),
            {"embeddings": np.zeros(7, bool)},
        )


def test_circuits_are_judged_beside_their_complement_and_random_nodes(setting, table):
    """With a linear read-out every number can be written down: shares of the effect that a set holds."""
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    model = ToyChain(torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(2)), [])
    probe, pairs, dictionary = setting[2], align_table(table), {"embeddings": LinearDictionary(basis)}
    found = effects(Experiment(model, dictionary, probe, pairs))
    scores = attribution(found, np.sign(found.y_target - found.y_source))["embeddings"]
    wired = np.arange(WIDTH + 1) < 2
    rows = circuit_quality(
        Experiment(model, dictionary, probe, pairs),
        {0.5: {}, 0.1: {"embeddings": wired}},
        table["cluster"].to_numpy(),
        seed=3,
    )
    assert rows["tau"].tolist() == [0.1, 0.5]
    assert rows["n_nodes"].tolist() == [2, 0]
    share = scores[:2].sum() / scores.sum()
    np.testing.assert_allclose(rows["faithfulness"], [share, 0.0], atol=1e-5)
    np.testing.assert_allclose(rows["completeness"], [1 - share, 1.0], atol=1e-5)
    assert rows["random"].iloc[1] == pytest.approx(0.0, abs=1e-6)
    chance = np.flatnonzero(np.random.default_rng(3).permutation(wired)[:-1])
    assert rows["random"].iloc[0] == pytest.approx(scores[chance].sum() / scores.sum(), abs=1e-5)
    for name in ("faithfulness", "completeness", "random"):
        assert (rows[f"{name}_low"] <= rows[name] + 1e-9).all()
        assert (rows[name] <= rows[f"{name}_high"] + 1e-9).all()


def test_areas_and_spacings():
    assert area(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])) == pytest.approx(0.75)
    assert log_spaced(1000)[[0, 1, -1]].tolist() == [0, 1, 1000]
    assert len(log_spaced(1000)) <= 21
    assert share_counts(1000).tolist() == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    widths = {"a": 5, "b": 7}
    first, again = random_ranking(widths, 3), random_ranking(widths, 3)
    assert first.node.tolist() == again.node.tolist()
    assert len(first.node) == 10


def test_points_beyond_the_nodes_are_refused(setting):
    model, saes, probe, pairs, scores = setting
    with pytest.raises(ConfigurationError, match="18 nodes"):
        curves(Experiment(model, saes, probe, pairs), rank_nodes(scores), k=[19])
