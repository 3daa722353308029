"""The intervention engine on a GPU gives the effects that it gives on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_toys import LinearReadOut
from helix_twin import tiny_model
from test_effects_on_helix import TINY_SITES, some_pairs, untrained

from helix_sae.causal.effects import effects
from helix_sae.causal.experiment import Experiment

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    ("method", "start"), [("exact", "source"), ("exact", "patched"), ("atp", "source"), ("ig", "source")]
)
def test_effects(method: str, start: str) -> None:
    here, there, pairs = tiny_model(), tiny_model(), some_pairs()
    saes = untrained(here, TINY_SITES, 16, 4)
    weight = torch.linspace(-1, 2, 16)
    expected = effects(Experiment(here, saes, LinearReadOut(weight), pairs), method, start=start)
    there.module.to("cuda")
    placed = {site: sae.to("cuda") for site, sae in saes.items()}
    found = effects(Experiment(there, placed, LinearReadOut(weight.cuda()), pairs), method, start=start)
    for site in TINY_SITES:
        assert np.abs(expected.values[site]).max() > 1e-3
        np.testing.assert_allclose(found.values[site], expected.values[site], rtol=1e-3, atol=1e-4)
