"""The work of one shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helix_twin import tiny_network
from test_model import sequences

from helix_sae.errors import UnknownSiteError
from helix_sae.models.extraction import extract_activations
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.registry import handle_for, open_model

SITES = ("layers.0.mixer", "embeddings", "layers.3")


def test_every_token_in_the_order_of_the_input_whatever_the_batches(tmp_path: Path):
    save_network(tiny_network(), tmp_path)
    handle, tokens = handle_for(tmp_path, device="cpu"), sequences([7, 30, 30, 11, 60, 29])
    model = open_model(handle)
    found = extract_activations(tokens, handle=handle, sites=SITES)
    assert tuple(found) == SITES
    for site in SITES:
        alone = [model.capture(torch.from_numpy(t.ids)[None], [site])[site][0].numpy() for t in tokens]
        assert found[site].dtype == np.float32
        np.testing.assert_allclose(found[site], np.concatenate(alone), rtol=1e-5, atol=1e-5)
        small = extract_activations(tokens, handle=handle, sites=[site], token_budget=32)
        np.testing.assert_allclose(small[site], found[site], rtol=1e-5, atol=1e-5)


def test_an_unknown_site_is_refused(tmp_path: Path):
    save_network(tiny_network(), tmp_path)
    with pytest.raises(UnknownSiteError, match=r"layers\.7\.mixer"):
        extract_activations(
            sequences([5]), handle=handle_for(tmp_path, device="cpu"), sites=["layers.7.mixer"]
        )
