"""Learnt masks on gates whose inputs are known, where single effects cannot see them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal import Experiment, align_table, rank_nodes
from helix_sae.causal.curves import faithfulness
from helix_sae.causal.masks import learn_masks

WIDTH = 6


def conjunction() -> Experiment:
    """Channel 5 is the product of channels 0 and 1, closed in the source; channel 2 is large and read by nobody."""

    def gate(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        out[..., 5] = x[..., 0] * x[..., 1]
        return out

    embedding = torch.zeros(14, WIDTH)
    embedding[10] = torch.tensor([1.0, 1.0, 9.0, 0.5, 0.0, 0.0])
    table = pair_table(4, np.random.default_rng(0), length=8, cds=False)
    table["source_sequence"], table["target_sequence"] = "A" * 8, "U" * 8
    model = ToyChain(embedding, [torch.zeros_like, gate])
    read_out = LinearReadOut(torch.eye(WIDTH)[5])
    return Experiment(model, {"layers.0": LinearDictionary(torch.eye(WIDTH))}, read_out, align_table(table))


def test_both_inputs_of_a_gate_are_found_where_neither_has_an_effect_alone():
    exp = conjunction()
    alone = exp.effects("exact").values["layers.0"]
    assert np.abs(alone).max() == 0
    learnt = learn_masks(exp, {"layers.0": np.zeros(WIDTH + 1)}, steps=40)
    scores = learnt.scores["layers.0"]
    assert set(np.argsort(-scores)[:2]) == {0, 1}
    assert scores[[0, 1]].min() > scores[[2, 3]].max() + 0.2
    assert scores[4] == scores[5] == 0.0, "they do not differ"
    assert scores[-1] == 0.0, "the error has no mask"
    assert learnt.history["n_nodes"].iloc[-1] < learnt.history["n_nodes"].iloc[0]
    assert learnt.passes == 3 + 3 * 40
    found = exp.curves(rank_nodes(learnt.scores), k=[0, 2])["sufficiency"]
    assert faithfulness(found.outcome, found.y_patched) == pytest.approx([0.0, 1.0], abs=1e-5)


def test_the_soft_patch_at_full_weight_is_the_patch_of_all_features():
    """The differentiable path against the engine's own."""
    from helix_sae.causal.batches import pair_batches
    from helix_sae.causal.interventions import BatchRun, all_nodes
    from helix_sae.causal.masks import _soft_read

    sites = ("layers.0.mixer", "layers.1")
    saes = {site: RandomSae(WIDTH, 7, seed) for seed, site in enumerate(sites)}
    pairs = align_table(pair_table(5, np.random.default_rng(0)))
    exp = Experiment(random_chain(WIDTH), saes, LinearReadOut(torch.linspace(-1, 2, WIDTH)), pairs)
    for batch in pair_batches(exp):
        run = BatchRun(exp, batch)
        for weight, nodes in ((1.0, all_nodes(exp.widths, error=False)), (0.0, {})):
            soft = _soft_read(run, {site: torch.full((7,), weight) for site in sites})
            torch.testing.assert_close(soft.detach(), run.patched([nodes])[0][0], atol=1e-5, rtol=0)
