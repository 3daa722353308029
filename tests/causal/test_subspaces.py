"""Supervised subspaces against a model whose one causal direction is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal import Experiment, align_table, rank_nodes
from helix_sae.causal.curves import faithfulness
from helix_sae.causal.inference import attribution
from helix_sae.causal.subspaces import _rotation, fit_subspaces
from helix_sae.errors import ConfigurationError

WIDTH = 6


def planted(n: int = 8) -> tuple[Experiment, torch.Tensor]:
    """A chain that reads one direction through a nonlinearity; everything else goes nowhere."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)

    def read(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ direction).unsqueeze(-1) * torch.eye(WIDTH)[0]

    embedding = torch.randn(14, WIDTH, generator=generator)
    # What the second layer reads is hidden from the read-out itself.
    model = ToyChain(embedding, [torch.zeros_like, lambda x: read(x) - x])
    pairs = align_table(pair_table(n, np.random.default_rng(0), edits=5))
    sites = {"layers.0": LinearDictionary(torch.eye(WIDTH))}
    return Experiment(model, sites, LinearReadOut(torch.eye(WIDTH)[0]), pairs), direction


def test_the_one_direction_is_found_and_swaps_the_read_out_on_other_pairs():
    exp, direction = planted()
    fitted = fit_subspaces(exp.on(np.arange(4)), rank=2, steps=60)
    rows = fitted.dictionaries["layers.0"].W_dec
    torch.testing.assert_close(rows @ rows.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    assert abs(float(rows[0] @ direction)) > 0.99
    other = exp.on(np.arange(4, 8)).using(fitted.dictionaries)
    first = {"layers.0": np.eye(WIDTH + 1, dtype=bool)[0]}
    out = other.patched([first, {"layers.0": np.ones(WIDTH + 1, dtype=bool)}])
    assert faithfulness(out, out.y[1])[0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("rank", [1, 3, WIDTH])
def test_the_rotation_begins_where_it_is_told_to(rank):
    start = torch.linalg.qr(torch.randn(WIDTH, rank, generator=torch.Generator().manual_seed(0))).Q.T
    torch.testing.assert_close(_rotation(start).weight, start, atol=1e-6, rtol=0)


def test_as_a_dictionary_it_explains_everything_with_all_of_its_directions():
    saes = {site: RandomSae(WIDTH, 7, seed) for seed, site in enumerate(("layers.0.mixer", "layers.1"))}
    pairs = align_table(pair_table(6, np.random.default_rng(0)))
    exp = Experiment(random_chain(WIDTH), saes, LinearReadOut(torch.linspace(-1, 2, WIDTH)), pairs)
    fitted = fit_subspaces(exp, rank=2, steps=8)
    mine = exp.using(fitted.dictionaries)
    found = mine.effects("exact")
    scores = attribution(found, np.sign(found.y_target - found.y_source))
    curve = mine.curves(rank_nodes(scores), k=[0, 12])["sufficiency"]
    assert faithfulness(curve.outcome, curve.y_patched) == pytest.approx([0.0, 1.0], abs=1e-4)
    assert fitted.passes == 6 + 3 * 8
    again = fit_subspaces(exp, rank=2, steps=8)
    torch.testing.assert_close(
        again.dictionaries["layers.1"].W_dec, fitted.dictionaries["layers.1"].W_dec, atol=0, rtol=0
    )
    with pytest.raises(ConfigurationError, match="7 directions"):
        fit_subspaces(exp, rank=7)
