"""The experiment as one object: parts of it, what is wrong with one, and how it travels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from causal_toys import LinearReadOut, RandomSae, pair_table, random_chain
from helix_twin import tiny_network

from helix_sae.causal import Experiment, effects
from helix_sae.causal.alignment import align_table
from helix_sae.causal.curves import rank_nodes
from helix_sae.causal.inference import attribution
from helix_sae.causal.read_out import Probe
from helix_sae.causal.specification import Specification, StoredAutoencoder
from helix_sae.datasets.structures import load_structure, save_structure
from helix_sae.errors import ConfigurationError
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.registry import handle_for
from helix_sae.pipelines.causal_acdc.experiment import ModelAsRead
from helix_sae.sae import InputScaling, ReluConfig, TopKConfig, random_autoencoder

WIDTH = 6
SITES = ("layers.2", "layers.0.mixer")


@pytest.fixture
def exp() -> Experiment:
    saes = {site: RandomSae(WIDTH, 7, seed) for seed, site in enumerate(SITES)}
    pairs = align_table(pair_table(6, np.random.default_rng(0)))
    return Experiment(random_chain(WIDTH), saes, LinearReadOut(torch.linspace(-1, 2, WIDTH)), pairs)


def test_sites_come_in_forward_order_whatever_the_order_they_are_given_in(exp):
    assert exp.sites == ("layers.0.mixer", "layers.2")
    assert exp.widths == {"layers.0.mixer": 8, "layers.2": 8}


def test_a_part_has_the_numbers_of_the_whole(exp):
    whole, rows = exp.effects("exact"), np.array([4, 1])
    np.testing.assert_allclose(
        exp.on(rows).effects("exact").values["layers.2"], whole.values["layers.2"][rows], atol=1e-6
    )
    mask = np.arange(6) % 2 == 0
    np.testing.assert_allclose(exp.on(mask).effects().y_source, whole.y_source[mask], atol=1e-6)
    one = exp.at(["layers.2"])
    assert one.sites == ("layers.2",)
    np.testing.assert_allclose(one.effects("atp").values["layers.2"], exp.effects("atp").values["layers.2"])
    back = exp.turned()
    assert back.direction == "target_to_source"
    assert back.turned().direction == "source_to_target"
    np.testing.assert_allclose(back.effects("atp").y_source, whole.y_target, atol=1e-6)


def test_methods_are_the_functions(exp):
    atp = exp.effects("atp")
    np.testing.assert_array_equal(atp.values["layers.2"], effects(exp, "atp").values["layers.2"])
    scores = attribution(atp, np.ones(6))
    both = exp.curves(rank_nodes(scores), k=[0, 3])
    assert set(both) == {"sufficiency", "necessity"}
    np.testing.assert_array_equal(
        both["necessity"].outcome.y[1], exp.patched([rank_nodes(scores).without_first(3)]).y[0]
    )
    circuit = exp.acdc(scores, taus=[0.01], n_random_orders=0)
    nodes = {s: (circuit.nodes.loc[circuit.nodes["site"] == s, "tau"] >= 0.01).to_numpy() for s in exp.sites}
    assert circuit.metadata["dictionaries"] == atp.metadata["dictionaries"]
    assert set(exp.edges(nodes, np.ones(6), n_verified=0)) >= {"estimate", "exact"}


def test_an_experiment_without_a_dictionary_is_refused(exp):
    with pytest.raises(ConfigurationError, match="no trained dictionary"):
        exp.using({})
    with pytest.raises(ConfigurationError, match=r"No trained dictionary for site layers\.1"):
        exp.at(["layers.1"])
    with pytest.raises(ConfigurationError, match="no pair"):
        exp.on(np.zeros(6, dtype=bool))


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("config", [TopKConfig(k=3, expansion_factor=2), ReluConfig(expansion_factor=1)])
def test_a_specification_travels_as_plain_data_and_opens_to_the_same_numbers(tmp_path: Path, config, some):
    """Through a file and through a pickle, as to a worker."""
    save_network(tiny_network(), tmp_path / "model")
    handle = handle_for(tmp_path / "model", device="cpu")
    sae = random_autoencoder(config.resolve(16), InputScaling(torch.zeros(16), 1.0), 0)
    weight = np.random.default_rng(0).normal(size=(16, 1))
    made = Specification(
        ModelAsRead(handle.model_dump(), through_head=False),
        {"layers.0": StoredAutoencoder.of(sae, np.arange(sae.d_sae) < 9 if some else None)},
        Probe("ridge", "te", np.zeros(16), np.ones(16), (weight,), (np.zeros(1),), 0.5),
        align_table(pair_table(3, np.random.default_rng(1))),
        positions="tokens",
    )
    folder = tmp_path / "experiment"
    folder.mkdir()
    save_structure(made, folder)
    expected = made.open().effects("exact")
    assert expected.metadata["positions"] == "tokens"
    assert np.abs(expected.values["layers.0"]).max() > 0
    # Features that are not spoken of do nothing by themselves: they belong to the error node, the last.
    assert (expected.values["layers.0"][:, 9:-1].any()) != some
    for arrived in (load_structure(folder), pickle.loads(pickle.dumps(made))):  # noqa: S301 - our own, from a line above
        found = arrived.open().effects("exact")
        np.testing.assert_array_equal(found.values["layers.0"], expected.values["layers.0"])
        assert found.metadata == expected.metadata
