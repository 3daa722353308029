"""The engine on the real architecture: its fast path against the slow twin and against answers known in advance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from causal_oracle import slow_effects, slow_group
from causal_toys import LinearReadOut
from helix_twin import tiny_model
from mini_setting import MINI, activations

from helix_sae.causal.alignment import TokenPair, align_table
from helix_sae.causal.effects import effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.interventions import all_nodes, patched_outputs
from helix_sae.models.helix.loading import load_helix
from helix_sae.sae import TopKConfig, estimate_scaling, random_autoencoder

TINY_SITES = ("embeddings", "layers.0.mixer", "layers.2.mixer", "layers.3.self_attn", "layers.4")


def some_pairs() -> list[TokenPair]:
    """An early and a late substitution, an insertion and a deletion, with and without codon markers."""
    source = "GGACUUACGCAUUCGGAACUGCAUGGCGAAGCUUAA"
    rows = [
        (source, source[:4] + "G" + source[5:], 22, 22),
        (source, source[:30] + "C" + source[31:], 22, 22),
        (source, source[:10] + "UU" + source[10:], 22, 24),
        (source, source[:8] + source[9:], None, None),
    ]
    table = pd.DataFrame(
        rows, columns=["source_sequence", "target_sequence", "source_cds_start", "target_cds_start"]
    )
    table["source_cds_end"], table["target_cds_end"] = (
        table["source_cds_start"] + 12,
        table["target_cds_start"] + 12,
    )
    bounds = [f"{side}_cds_{end}" for side in ("source", "target") for end in ("start", "end")]
    return align_table(table.astype(dict.fromkeys(bounds, "Int64")))


def untrained(model, sites, features: int, k: int):
    """Autoencoders with the scale of the model's activations; speed and exactness do not depend on what they learned."""
    pairs = some_pairs()
    arrays = activations(model, [t for p in pairs for t in (p.source, p.target)], sites)
    config = TopKConfig(k=k, expansion_factor=features / model.hidden_size).resolve(model.hidden_size)
    return {
        site: random_autoencoder(config, estimate_scaling(torch.from_numpy(x), site), seed)
        for seed, (site, x) in enumerate(arrays.items())
    }


@pytest.mark.parametrize("token_budget", [4096, 60])
@pytest.mark.parametrize(("start", "positions"), [("source", "nucleotides"), ("patched", "tokens")])
def test_exact_equals_one_full_pass_for_each_feature_at_every_kind_of_site(start, positions, token_budget):
    """Also where the nodes of a pair go in several passes, of which the later ones start behind its first difference."""
    model = tiny_model()
    saes = untrained(model, TINY_SITES, 16, 4)
    probe, pairs = LinearReadOut(torch.linspace(-1, 2, 16)), some_pairs()[1:]
    fast = effects(
        Experiment(model, saes, probe, pairs, positions=positions, token_budget=token_budget), start=start
    )
    for site, sae in saes.items():
        slow = slow_effects(model, sae, site, probe, pairs, positions, start)
        assert np.abs(slow).max() > 1e-3
        np.testing.assert_allclose(fast.values[site], slow, atol=1e-5)


@pytest.fixture(scope="module")
def helix_mini():
    return load_helix(MINI, device="cpu")


def test_exact_equals_one_full_pass_for_each_feature_on_helix_mini(helix_mini):
    saes, pairs = untrained(helix_mini, ["layers.2.mixer"], 96, 8), some_pairs()[1:3]
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=helix_mini.hidden_size)).float()
    probe = LinearReadOut(weight / weight.norm())
    fast = effects(Experiment(helix_mini, saes, probe, pairs))
    for site, sae in saes.items():
        slow = slow_effects(helix_mini, sae, site, probe, pairs)
        assert np.abs(slow).max() > 1e-3
        np.testing.assert_allclose(fast.values[site], slow, atol=1e-5)


@pytest.mark.parametrize("token_budget", [10**6, 1])
def test_only_the_suffix_is_run(helix_mini, monkeypatch, token_budget: int):
    """Nothing before the first differing token goes through the network again; alone, each node runs from its own."""
    saes, pairs = untrained(helix_mini, ["layers.2.mixer"], 96, 8), some_pairs()[1:2]
    seen: list[tuple[int, int]] = []
    resume = helix_mini.resume_suffix

    def counted(site, value, prefix, hooks=None, changed=None):
        seen.append((prefix.start, value.shape[1]))
        return resume(site, value, prefix, hooks, changed)

    monkeypatch.setattr(helix_mini, "resume_suffix", counted)
    probe = LinearReadOut(torch.ones(helix_mini.hidden_size))
    effects(Experiment(helix_mini, saes, probe, pairs, token_budget=token_budget))
    first, time = pairs[0].first, pairs[0].source.ids.size
    assert first > 25
    assert all(start + length == time for start, length in seen)
    assert min(start for start, _ in seen) == first
    if token_budget == 1:
        assert len({start for start, _ in seen}) > 3
    else:
        assert set(seen) == {(first, time - first)}


def test_several_sites_are_overwritten_with_values_recomputed_downstream(helix_mini):
    """The do-operator: against the twin that computes each token's codes on what arrives there."""
    sites = ("layers.2.mixer", "layers.6")
    saes, pairs, rng = untrained(helix_mini, sites, 96, 8), some_pairs()[1:3], np.random.default_rng(1)
    probe = LinearReadOut(torch.linspace(-1, 1, helix_mini.hidden_size))
    nodes = {site: rng.random(97) < 0.5 for site in sites}
    out = patched_outputs(Experiment(helix_mini, saes, probe, pairs), [nodes])
    slow = [slow_group(helix_mini, saes, probe, pair, nodes) for pair in pairs]
    np.testing.assert_allclose(out.y[0], slow, atol=1e-5)
    # Differences taken on the unpatched runs and added at both sites would count the first site's effect twice.
    frozen = _frozen(helix_mini, saes, probe, pairs, nodes)
    assert np.abs(out.y[0] - frozen).max() > 1e-4


def _frozen(model, saes, probe, pairs, nodes) -> np.ndarray:
    values = []
    for pair in pairs:
        ids, target_ids = (torch.from_numpy(t.ids)[None] for t in (pair.source, pair.target))
        source, target = (model.capture(i, list(nodes)) for i in (ids, target_ids))
        edits = {}
        for site, chosen in nodes.items():
            sae, change = saes[site], torch.zeros_like(source[site])
            keep = torch.from_numpy(chosen[:-1])
            rows = pair.source.is_nucleotide[pair.source_row]
            s, t = pair.source_row[rows], pair.target_row[rows]
            with torch.no_grad():
                a, b = source[site][0, s], target[site][0, t]
                delta = torch.where(keep, sae.encode(b) - sae.encode(a), torch.zeros(1))
                change[0, s] = sae.decode(delta) - sae.decode(torch.zeros_like(delta))
                if chosen[-1]:
                    change[0, s] += (b - sae.decode(sae.encode(b))) - (a - sae.decode(sae.encode(a)))
            edits[site] = lambda x, change=change: x + change
        with torch.no_grad():
            nucleotide = torch.from_numpy(pair.source.is_nucleotide)[None]
            values.append(float(probe(model.pool(model.run(ids, edits), nucleotide))[0]))
    return np.array(values)


def test_ends_batches_and_completeness(helix_mini):
    """Known answer 5 on the shipped model: substitutions only, where everything patched is the target's own run."""
    sites = ("embeddings", "layers.6")
    saes, pairs = untrained(helix_mini, sites, 96, 8), some_pairs()[:2]
    probe = LinearReadOut(torch.linspace(-1, 1, helix_mini.hidden_size))
    everything = all_nodes(dict.fromkeys(sites, 97))
    out = patched_outputs(Experiment(helix_mini, saes, probe, pairs, positions="tokens"), [{}, everything])
    np.testing.assert_allclose(out.y[0], out.y_source, atol=1e-6)
    np.testing.assert_allclose(out.y[1], out.y_target, atol=1e-5)
    later = {site: saes[site] for site in sites[1:]}
    found = effects(Experiment(helix_mini, later, probe, some_pairs()[1:3]), "ig", steps=24)
    alone = effects(Experiment(helix_mini, later, probe, some_pairs()[1:3], token_budget=1), "ig", steps=24)
    for site in later:
        total = found.y_patched[site] - found.y_source
        assert np.abs(found.values[site].sum(1) - total).sum() < 0.01 * np.abs(total).sum()
        np.testing.assert_allclose(found.values[site], alone.values[site], atol=1e-5)
