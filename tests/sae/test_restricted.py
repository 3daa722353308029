"""An SAE of which only some features speak."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sae_toys import CONFIGS, D_IN, superposition

from helix_sae.errors import AnalysisError
from helix_sae.sae import estimate_scaling, load_sae, random_autoencoder, save_sae
from helix_sae.sae.restricted import RestrictedAutoencoder, certified_masks
from helix_sae.sae.sparse import to_dense


@pytest.mark.parametrize("name", list(CONFIGS))
def test_silent_features_have_no_code_and_the_others_theirs(name: str) -> None:
    x = superposition(200)
    base = random_autoencoder(CONFIGS[name].resolve(D_IN), estimate_scaling(x, "a"), seed=0)
    spoken = np.arange(base.d_sae) % 3 != 0
    sae = RestrictedAutoencoder(base, spoken)
    codes = sae.encode(x)
    assert (codes[:, ~spoken] == 0).all()
    torch.testing.assert_close(codes[:, spoken], base.encode(x)[:, spoken])
    torch.testing.assert_close(to_dense(sae.encode_active(x), sae.d_sae), codes, atol=1e-5, rtol=1e-4)
    # What the silent ones reconstruct stays in the error.
    silent = base.encode(x).detach()
    silent[:, spoken] = 0
    torch.testing.assert_close(sae(x) + silent @ base.W_dec, base(x), atol=1e-4, rtol=1e-4)
    assert sae.directions is base.W_dec


def test_moving_and_saving_takes_the_whole_along(tmp_path) -> None:
    base = random_autoencoder(CONFIGS["topk"].resolve(D_IN), estimate_scaling(superposition(50), "a"), seed=0)
    sae = RestrictedAutoencoder(base, np.ones(base.d_sae, dtype=bool))
    assert sae.to("cpu").get_buffer("spoken").all()
    save_sae(sae, tmp_path)
    torch.testing.assert_close(load_sae(tmp_path).W_dec, base.W_dec)


def table(*certified: str) -> pd.DataFrame:
    return pd.DataFrame({"certified": certified})


def test_masks_are_those_of_the_tables() -> None:
    masks = certified_masks({"a": table("yes", "no"), "b": table("no", "no")})
    assert {site: mask.tolist() for site, mask in masks.items()} == {"a": [True, False], "b": [False, False]}


@pytest.mark.parametrize("unknown", [None, table("unknown", "unknown")])
def test_certified_features_of_an_unknown_stability_are_an_error(unknown: pd.DataFrame | None) -> None:
    with pytest.raises(AnalysisError, match=r"those of b is unknown: fewer than five seeds .*n_seeds to 5"):
        certified_masks({"a": table("yes"), "b": unknown})


def test_no_certified_feature_anywhere_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="no feature of a, b comes back in three quarters"):
        certified_masks({"a": table("no"), "b": table("no")})
