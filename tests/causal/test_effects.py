"""The effect engine against its slow twin, and against answers that are known in advance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_oracle import slow_effects
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal.alignment import align_table
from helix_sae.causal.effects import effects, effects_of_each, screen
from helix_sae.causal.experiment import Experiment
from helix_sae.errors import ConfigurationError, UnknownSiteError

WIDTH = 6


@pytest.fixture
def pairs():
    return align_table(pair_table(7, np.random.default_rng(0)))


@pytest.fixture
def readout():
    return LinearReadOut(torch.linspace(-1, 2, WIDTH))


@pytest.mark.parametrize("start", ["source", "patched"])
@pytest.mark.parametrize("positions", ["nucleotides", "tokens", "edited"])
def test_exact_equals_one_full_pass_for_each_feature(pairs, readout, start, positions):
    model = random_chain(WIDTH)
    saes = {site: RandomSae(WIDTH, 11, seed) for seed, site in enumerate(("layers.0.mixer", "layers.1"))}
    fast = effects(Experiment(model, saes, readout, pairs, positions=positions), start=start)
    for site, sae in saes.items():
        slow = slow_effects(model, sae, site, readout, pairs, positions, start)
        assert np.abs(slow).max() > 1e-2
        np.testing.assert_allclose(fast.values[site], slow, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "start"), [("exact", "source"), ("exact", "patched"), ("atp", "source"), ("ig", "source")]
)
def test_dictionaries_that_share_their_passes_have_the_effects_that_each_has_alone(
    pairs, readout, method, start
):
    model, sites = random_chain(WIDTH), ("layers.0.mixer", "layers.1")
    candidates = {
        name: {site: RandomSae(WIDTH, size, seed + i) for i, site in enumerate(sites)}
        for seed, (name, size) in enumerate((("wide", 11), ("narrow", 5)))
    }
    exp = Experiment(model, candidates["wide"], readout, pairs)
    together = effects_of_each(exp, candidates, method, start=start)
    for name, dictionaries in candidates.items():
        alone = effects(exp.using(dictionaries), method, start=start)
        for site in sites:
            np.testing.assert_array_equal(together[name].values[site], alone.values[site])
            np.testing.assert_array_equal(together[name].magnitude[site], alone.magnitude[site])
            np.testing.assert_array_equal(together[name].y_patched[site], alone.y_patched[site])


def test_batching_changes_nothing(pairs, readout):
    model, saes = random_chain(WIDTH), {"layers.0": RandomSae(WIDTH, 11, 0)}
    for method in ("exact", "atp", "ig"):
        large = effects(Experiment(model, saes, readout, pairs), method)
        small = effects(Experiment(model, saes, readout, pairs, token_budget=1), method)
        np.testing.assert_allclose(large.values["layers.0"], small.values["layers.0"], atol=1e-6)
        np.testing.assert_allclose(large.magnitude["layers.0"], small.magnitude["layers.0"], atol=1e-6)


def test_linear_read_out_has_the_effect_that_one_can_write_down(pairs):
    """Known answer 1: effect = mean over nucleotides of delta_tj <d_j, v>, by every method; orthonormal: exact recovery."""
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    model = ToyChain(torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(2)), [])
    wired = [1, 4]
    v = basis[wired[0]] * 2.0 - basis[wired[1]]
    dictionary = LinearDictionary(basis)
    expected = []
    for pair in pairs:
        x, y = (model.embedding[torch.from_numpy(t.ids)] for t in (pair.source, pair.target))
        delta = (dictionary.encode(y) - dictionary.encode(x)) * torch.from_numpy(pair.source.is_nucleotide)[
            :, None
        ]
        expected.append((delta.sum(0) / pair.source.is_nucleotide.sum() * (basis @ v)).numpy())
    for method in ("exact", "atp", "ig"):
        found = effects(Experiment(model, {"embeddings": dictionary}, LinearReadOut(v), pairs), method)
        np.testing.assert_allclose(found.values["embeddings"][:, :-1], np.array(expected), atol=1e-5)
        score = np.abs(found.values["embeddings"]).mean(0)
        assert set(np.argsort(-score)[:2]) == set(wired)
        assert np.delete(score, wired).max() < 1e-6


@pytest.mark.parametrize("method", ["exact", "atp", "ig"])
def test_ends_of_every_run_are_the_models_own(pairs, readout, method):
    model = random_chain(WIDTH)
    found = effects(
        Experiment(model, {"embeddings": RandomSae(WIDTH, 9, 3)}, readout, pairs, positions="tokens"), method
    )
    for i, pair in enumerate(pairs):
        for tokens, y in ((pair.source, found.y_source[i]), (pair.target, found.y_target[i])):
            ids, mask = torch.from_numpy(tokens.ids)[None], torch.from_numpy(tokens.is_nucleotide)[None]
            assert float(readout(model.pool(model.run(ids, {}), mask))[0]) == pytest.approx(y, abs=1e-6)
    if method == "atp":
        assert np.isnan(found.y_patched["embeddings"]).all(), "it runs nothing on"
        return
    # Everything at the embeddings, error included, is the target's run.
    np.testing.assert_allclose(found.y_patched["embeddings"], found.y_target, atol=1e-5)


def test_integrated_gradients_are_complete(pairs, readout):
    model, sae = random_chain(WIDTH), RandomSae(WIDTH, 11, 0)
    found = effects(Experiment(model, {"layers.0": sae}, readout, pairs), "ig", steps=20)
    total = found.y_patched["layers.0"] - found.y_source
    assert np.abs(found.values["layers.0"].sum(1) - total).sum() < 0.01 * np.abs(total).sum()


def test_attribution_is_the_derivative_of_the_exact_effect(pairs, readout):
    """For a small change atp and exact agree; here the change is made small by a weak dictionary code."""
    model, sae = random_chain(WIDTH), RandomSae(WIDTH, 11, 0)
    close = align_table(pair_table(5, np.random.default_rng(1), length=200, edits=1))
    exact = effects(Experiment(model, {"layers.1": sae}, readout, close))
    atp = effects(Experiment(model, {"layers.1": sae}, readout, close), "atp")
    np.testing.assert_allclose(exact.values["layers.1"], atp.values["layers.1"], atol=3e-3)


def test_reversed_direction_swaps_the_ends(pairs, readout):
    model, saes = random_chain(WIDTH), {"layers.0": RandomSae(WIDTH, 11, 0)}
    forth = effects(Experiment(model, saes, readout, pairs), "atp")
    back = effects(Experiment(model, saes, readout, pairs, direction="target_to_source"), "atp")
    np.testing.assert_allclose(forth.y_source, back.y_target, atol=1e-6)
    np.testing.assert_allclose(forth.y_target, back.y_source, atol=1e-6)
    assert back.metadata["direction"] == "target_to_source"


def test_screening_leaves_out_what_it_says(pairs, readout):
    model, saes = random_chain(WIDTH), {"layers.0": RandomSae(WIDTH, 11, 0)}
    atp = effects(Experiment(model, saes, readout, pairs), "atp")
    chosen = screen(atp, 3)
    exact = effects(Experiment(model, saes, readout, pairs))
    screened = effects(Experiment(model, saes, readout, pairs), nodes=chosen)
    kept = np.isfinite(screened.values["layers.0"]).all(0)
    assert set(np.flatnonzero(kept)) == set(chosen["layers.0"].tolist())
    np.testing.assert_allclose(
        screened.values["layers.0"][:, kept], exact.values["layers.0"][:, kept], atol=1e-6
    )
    assert screened.metadata["screening"] == {"layers.0": 4}


def test_only_nodes_that_differ_are_run(readout):
    """Where nothing differs nothing is run, and the effect is exactly 0."""
    table = pair_table(3, np.random.default_rng(0))
    table["target_sequence"] = table["source_sequence"]
    model = random_chain(WIDTH)
    found = effects(Experiment(model, {"layers.0": RandomSae(WIDTH, 11, 0)}, readout, align_table(table)))
    assert (found.values["layers.0"] == 0).all()
    assert model.n_sequences == 3  # the fully patched run of each pair


def test_errors_say_what_is_wrong(pairs, readout):
    model, sae = random_chain(WIDTH), RandomSae(WIDTH, 11, 0)
    with pytest.raises(ConfigurationError, match=r"No trained dictionary for site layers\.1"):
        effects(Experiment(model, {"layers.0": sae}, readout, pairs).at(["layers.0", "layers.1"]))
    with pytest.raises(UnknownSiteError):
        effects(Experiment(model, {"layers.9": sae}, readout, pairs))
    with pytest.raises(ConfigurationError, match="no pair"):
        effects(Experiment(model, {"layers.0": sae}, readout, []))
    with pytest.raises(ConfigurationError, match="exact"):
        effects(Experiment(model, {"layers.0": sae}, readout, pairs), "atp", start="patched")
