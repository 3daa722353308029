"""Effects of a bfloat16 model: both sides of every difference are pooled in float32."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from causal_toys import LinearReadOut, RandomSae, pair_table
from helix_twin import random_ids, tiny_model

from helix_sae.causal.alignment import align_table
from helix_sae.causal.experiment import Experiment
from helix_sae.models.contract import record
from helix_sae.models.helix.model import HelixModel

START = 60
SITES = ("embeddings", "layers.2.mixer", "layers.2", "layers.3.feed_forward")
METHODS = ("exact", "atp", "ig")


def model_in(dtype: torch.dtype) -> HelixModel:
    model = tiny_model()
    model.place("cpu", dtype)
    return model


def experiment(model: HelixModel, site: str) -> Experiment:
    pairs = align_table(pair_table(6, np.random.default_rng(1), length=150, edits=3, cds=False), "none")
    return Experiment(
        model, {site: RandomSae(16, 10, seed=0)}, LinearReadOut(torch.linspace(-1, 1, 16)), pairs
    )


def rms(x: np.ndarray) -> float:
    return float(np.sqrt((x**2).mean()))


def test_a_suffix_is_pooled_as_the_whole_is():
    model, ids = model_in(torch.bfloat16), random_ids(3, 200)
    is_nucleotide = torch.rand(3, 200, generator=torch.Generator().manual_seed(0)) > 0.3
    whole = model.hidden(ids)
    assert whole.dtype == torch.bfloat16
    prefix = model.prefix_states(model.cache(ids), START)._replace(hidden=whole[:, :START])
    pooled = model.pool_suffix(whole[:, START:], prefix, is_nucleotide)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, model.pool(whole, is_nucleotide), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("site", SITES)
def test_activations_are_float32_and_edits_too(site: str):
    model, ids = model_in(torch.bfloat16), random_ids(2, 9)
    cache, seen = model.cache(ids), {}
    captured = model.capture(ids, [site])[site]
    assert captured.dtype == model.at_site(site, cache).dtype == torch.float32
    torch.testing.assert_close(model.at_site(site, cache), captured)
    with torch.no_grad():
        torch.testing.assert_close(
            model.run(ids, {site: partial(record, seen, site)}), model.hidden(ids), rtol=0, atol=0
        )
        changed = model.run(ids, {site: lambda x: x + 1.0})
    assert seen[site].dtype == torch.float32
    # Run on from there the change is not rounded to bfloat16.
    torch.testing.assert_close(model.resume(site, captured + 1.0, cache), changed, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("site", SITES[:3])
def test_effects_are_those_of_float32_but_for_the_rounding_of_the_states(site: str, method: str):
    """Rounded pools were wrong by two thirds of the exact effects' size; the states' own rounding is a tenth of it."""
    exact = experiment(model_in(torch.float32), site).effects(method).values[site]
    found = experiment(model_in(torch.bfloat16), site).effects(method).values[site]
    assert rms(exact) > 1e-4
    assert rms(found - exact) < 0.15 * rms(exact)


def test_exact_effects_are_the_differences_of_whole_passes():
    """The slow twin, in the same precision: a whole pass for every pair and node."""
    model, site = model_in(torch.bfloat16), "layers.2"
    exp = experiment(model, site)
    found, sae = exp.effects("exact").values[site][:, :-1], exp.dictionaries[site]
    slow = np.zeros_like(found)
    for p, pair in enumerate(exp.pairs):
        source, target = (torch.from_numpy(side.ids)[None] for side in (pair.source, pair.target))
        before, after = (sae.encode(model.capture(ids, [site])[site][0]) for ids in (source, target))
        y = [_read(exp, source, {})]
        for node in range(slow.shape[1]):
            change = (after - before)[:, node : node + 1] * exp.decoders[site][node]
            y.append(_read(exp, source, {site: lambda x, change=change: x + change}))
        slow[p] = np.subtract(y[1:], y[0])
    assert rms(found - slow) < 0.15 * rms(slow)


def _read(exp: Experiment, ids: torch.Tensor, edits: dict) -> float:
    with torch.no_grad():
        return float(exp.read(exp.model.run(ids, edits), torch.ones_like(ids, dtype=torch.bool)))
