"""Autoencoders that come with a model are used where there is too little to train on, and say how well they fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_sae_training_nodes import SITE, TABLE, Store, parameters

from helix_sae.datasets.saes import SaeCheckpointsDataset
from helix_sae.errors import AnalysisError, DataError
from helix_sae.left_out import left_out_of
from helix_sae.pipelines.sae_training import nodes
from helix_sae.pipelines.sae_training.shipped import fitting
from helix_sae.sae import InputScaling, ReluConfig, SparseAutoencoder, random_autoencoder
from helix_sae.sae.fit import ERROR_999, share_outside, token_errors


def exact_sae(model: str = "model") -> SparseAutoencoder:
    """An SAE of two features that reconstructs positive activations exactly."""
    sae = random_autoencoder(
        ReluConfig(d_in=2, expansion_factor=1.0), InputScaling(torch.zeros(2), 1.0), seed=0
    )
    with torch.no_grad():
        for name in ("W_enc", "W_dec"):
            getattr(sae, name).copy_(torch.eye(2))
        for name in ("b_enc", "b_dec"):
            getattr(sae, name).zero_()
    sae.origin = {"model": model, "site": SITE, ERROR_999: 1e-6}
    return sae


def train(offered: dict[str, SparseAutoencoder], **more: Any) -> Any:
    return nodes.train(Store().activations(), TABLE, offered, parameters(device="cpu", **more))


def test_too_few_tokens_to_train_on() -> None:
    saes, history, metrics, *_ = train({SITE: exact_sae()})
    assert saes[SITE].d_sae == 2
    assert metrics.loc[0, "explained_variance"] == pytest.approx(1.0)
    assert metrics.loc[0, "outside_range"] == 0.0
    missing = left_out_of(history)
    assert missing is not None
    assert "tokens" in missing.reason


def test_what_was_asked_for() -> None:
    with pytest.raises(DataError, match="needs at least"):
        train({SITE: exact_sae()}, dictionaries="train")
    with pytest.raises(DataError, match="No autoencoders come with this model"):
        train({}, dictionaries="shipped")
    with pytest.raises(DataError, match="needs at least"):
        train({})


def test_those_of_another_model_or_site_are_not_taken() -> None:
    activations = Store().activations()
    assert fitting({SITE: exact_sae("another")}, activations) == {}
    assert fitting({"layers.9": exact_sae()}, activations) == {}
    assert list(fitting({SITE: exact_sae(), "layers.9": exact_sae()}, activations)) == [SITE]


def test_those_that_do_not_fit_are_refused() -> None:
    bad = exact_sae()
    with torch.no_grad():
        bad.W_dec.zero_()
    with pytest.raises(AnalysisError, match="explain too little of these sequences"):
        train({SITE: bad}, dictionaries="shipped")


def test_tokens_outside_the_range_of_training() -> None:
    sae = exact_sae()
    x = np.array([[1.0, 2.0], [3.0, -2.0], [0.5, 0.5], [-1.0, 0.0]], dtype=np.float32)
    assert token_errors(sae, [x[:2], x[2:]]) == pytest.approx([0.0, 2.0, 0.0, 0.5])
    assert share_outside(sae, [x]) == 0.5
    sae.origin = {}
    assert np.isnan(share_outside(sae, [x])), (
        "an autoencoder from elsewhere does not say what it was made for"
    )


def test_the_origin_is_kept_and_a_folder_that_is_not_there_offers_nothing(tmp_path: Any) -> None:
    place = str(tmp_path / "saes")
    dataset = SaeCheckpointsDataset(filepath=place, optional=True)
    assert dataset.exists()
    assert dataset.load() == {}
    assert not SaeCheckpointsDataset(filepath=place).exists()
    dataset.save({SITE: exact_sae()})
    assert dataset.load()[SITE].origin == exact_sae().origin
    config = pd.read_json(tmp_path / "saes" / SITE / "cfg.json", typ="series")
    assert config["metadata"]["model_name"] == "model"
    assert config["metadata"]["hook_name"] == SITE
