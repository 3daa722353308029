"""Edges of a circuit against a chain whose wires are known, and estimates against path patching."""

from __future__ import annotations

import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal.alignment import align_table
from helix_sae.causal.edges import circuit_edges, circuit_to_json
from helix_sae.causal.effects import effects
from helix_sae.causal.experiment import Experiment

WIDTH = 4


def wired() -> ToyChain:
    """Layer 1 writes 2 x channel 0 into channel 2 and 3 x channel 1 into channel 3."""

    def second(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([0 * x[..., 0], 0 * x[..., 0], 2 * x[..., 0], 3 * x[..., 1]], dim=-1)

    embedding = torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(0))
    embedding[:, 2:] = 0
    return ToyChain(embedding, [second])


def test_known_wires_are_the_only_edges():
    pairs = align_table(pair_table(6, np.random.default_rng(0)))
    probe = LinearReadOut(torch.tensor([0.0, 0.0, 1.0, -1.0]))
    dictionaries = {site: LinearDictionary(torch.eye(WIDTH)) for site in ("embeddings", "layers.0")}
    everything = {site: np.ones(WIDTH + 1, dtype=bool) for site in dictionaries}
    found = effects(Experiment(wired(), dictionaries, probe, pairs).at(["embeddings"]))
    signs = np.sign(found.y_target - found.y_source)
    edges = circuit_edges(Experiment(wired(), dictionaries, probe, pairs), everything, signs, n_verified=30)
    live = edges[edges["estimate"].abs() > 1e-6]
    names = set(live[["upstream_feature", "feature"]].itertuples(index=False, name=None))
    assert names == {("0", "2"), ("1", "3")}
    np.testing.assert_allclose(edges["estimate"], edges["exact"], atol=1e-6)
    # The chain is linear, so an edge carries all of its source's effect.
    total = (found.values["embeddings"][:, :2] * signs[:, None]).mean(axis=0)
    by_name = live.set_index("upstream_feature")["exact"]
    np.testing.assert_allclose([by_name["0"], by_name["1"]], total, atol=1e-6)


def test_estimates_agree_with_path_patching_for_small_changes():
    pairs = align_table(pair_table(5, np.random.default_rng(1)))
    model, probe = random_chain(6), LinearReadOut(torch.linspace(-1, 2, 6))
    model.embedding = model.embedding[:1] + 1e-3 * model.embedding  # letters that hardly differ
    sites = ("layers.0.mixer", "layers.0", "layers.2")
    saes = {site: RandomSae(6, 5, seed) for seed, site in enumerate(sites)}
    nodes = {site: np.array([True, True, False, False, True, True]) for site in sites}
    edges = circuit_edges(Experiment(model, saes, probe, pairs), nodes, np.ones(5), n_verified=100)
    assert len(edges) == 3 * 16
    assert edges["exact"].notna().all()
    largest = edges["exact"].abs().max()
    assert largest > 1e-7
    np.testing.assert_allclose(edges["estimate"] / largest, edges["exact"] / largest, atol=2e-2)


def test_only_the_strongest_are_measured_and_batches_do_not_matter():
    pairs = align_table(pair_table(5, np.random.default_rng(1)))
    model, probe = random_chain(6), LinearReadOut(torch.linspace(-1, 2, 6))
    saes = {site: RandomSae(6, 5, seed) for seed, site in enumerate(("layers.0", "layers.2"))}
    nodes = {site: np.ones(6, dtype=bool) for site in saes}
    signs = np.array([1.0, -1.0, 0.0, np.nan, 1.0])
    large = circuit_edges(Experiment(model, saes, probe, pairs), nodes, signs, n_verified=4)
    small = circuit_edges(Experiment(model, saes, probe, pairs, token_budget=1), nodes, signs, n_verified=4)
    assert large["exact"].notna().sum() == 4
    assert large["estimate"].abs().is_monotonic_decreasing
    np.testing.assert_allclose(large["estimate"], small["estimate"], atol=1e-6)
    np.testing.assert_allclose(large["exact"], small["exact"], atol=1e-6)


def test_one_site_has_no_edges():
    pairs = align_table(pair_table(2, np.random.default_rng(1)))
    model, probe = random_chain(6), LinearReadOut(torch.ones(6))
    edges = circuit_edges(
        Experiment(model, {"layers.0": RandomSae(6, 5, 0)}, probe, pairs),
        {"layers.0": np.ones(6, bool)},
        np.ones(2),
    )
    assert len(edges) == 0


def test_export_is_read_by_networkx():
    pairs = align_table(pair_table(3, np.random.default_rng(1)))
    model, probe = random_chain(6), LinearReadOut(torch.ones(6))
    saes = {site: RandomSae(6, 5, seed) for seed, site in enumerate(("layers.0", "layers.2"))}
    nodes = {site: np.ones(6, dtype=bool) for site in saes}
    edges = circuit_edges(Experiment(model, saes, probe, pairs), nodes, np.ones(3), n_verified=2)
    circuit = edges.loc[:, ["site", "feature"]].drop_duplicates()
    upstream = edges.loc[:, ["upstream_site", "upstream_feature"]].drop_duplicates()
    circuit = pd.concat([circuit, upstream.set_axis(["site", "feature"], axis=1)]).assign(attribution=1.0)
    text = json.dumps(circuit_to_json(circuit, edges, {"tau": 0.1}))
    graph = nx.node_link_graph(json.loads(text), edges="links")
    assert graph.number_of_edges() == 36
    assert graph.graph["tau"] == pytest.approx(0.1)
