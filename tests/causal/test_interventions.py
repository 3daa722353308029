"""Group patches at several sites against the token-by-token twin, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_oracle import slow_group
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, pair_table, random_chain

from helix_sae.causal.alignment import align_table
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.interventions import all_nodes, patched_outputs
from helix_sae.errors import ConfigurationError

WIDTH, FEATURES = 6, 11
SITES = ("layers.0.mixer", "layers.0", "layers.1.mixer", "layers.2")


@pytest.fixture
def pairs():
    return align_table(pair_table(6, np.random.default_rng(0)))


@pytest.fixture
def readout():
    return LinearReadOut(torch.linspace(-1, 2, WIDTH), variance=0.5)


@pytest.fixture
def saes():
    return {site: RandomSae(WIDTH, FEATURES, seed) for seed, site in enumerate(SITES)}


@pytest.mark.parametrize("positions", ["nucleotides", "tokens"])
def test_group_patch_equals_the_slow_twin(pairs, readout, saes, positions):
    model, rng = random_chain(WIDTH), np.random.default_rng(1)
    sets = [{site: rng.random(FEATURES + 1) < share for site in SITES} for share in (0.2, 0.5, 0.8)]
    sets += [{SITES[0]: rng.random(FEATURES + 1) < 0.5}]
    out = patched_outputs(Experiment(model, saes, readout, pairs, positions=positions), sets)
    for i, nodes in enumerate(sets):
        slow = [slow_group(model, saes, readout, pair, nodes, positions) for pair in pairs]
        np.testing.assert_allclose(out.y[i], slow, atol=1e-5)


def test_nothing_patched_is_the_source_and_everything_the_target(pairs, readout, saes):
    """Known answer 5."""
    model = random_chain(WIDTH)
    saes = {**saes, "embeddings": LinearDictionary(torch.eye(WIDTH))}
    widths = {site: (WIDTH if site == "embeddings" else FEATURES) + 1 for site in saes}
    sets = [{}, all_nodes(widths, features=False, error=False), all_nodes(widths)]
    out = patched_outputs(Experiment(model, saes, readout, pairs), sets)
    np.testing.assert_array_equal(out.y[0], out.y_source)
    np.testing.assert_array_equal(out.y[1], out.y_source)
    np.testing.assert_allclose(out.y[2], out.y_target, atol=1e-5)
    assert (out.magnitude[:2] == 0).all()
    assert (out.magnitude[2] > 0).all()
    np.testing.assert_allclose(out.divergence[1], (out.y_source - out.y_target) ** 2 / (2 * 0.5), rtol=1e-5)


def test_batch_size_does_not_matter(pairs, readout, saes):
    model, rng = random_chain(WIDTH), np.random.default_rng(1)
    sets = [{site: rng.random(FEATURES + 1) < 0.5 for site in SITES}]
    large = patched_outputs(Experiment(model, saes, readout, pairs), sets)
    small = patched_outputs(Experiment(model, saes, readout, pairs, token_budget=1), sets)
    np.testing.assert_allclose(large.y, small.y, atol=1e-6)
    np.testing.assert_allclose(large.magnitude, small.magnitude, atol=1e-6)


def test_sets_that_do_not_fit_are_refused(pairs, readout, saes):
    model = random_chain(WIDTH)
    with pytest.raises(ConfigurationError, match=r"layers\.1'"):
        patched_outputs(Experiment(model, saes, readout, pairs), [{"layers.1": np.ones(12, dtype=bool)}])
    with pytest.raises(ConfigurationError, match="12 nodes"):
        patched_outputs(Experiment(model, saes, readout, pairs), [{SITES[0]: np.ones(5, dtype=bool)}])
