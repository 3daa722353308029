"""Catalog entries of models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helix_twin import random_ids, tiny_model
from kedro.io.core import DatasetError

from helix_sae.datasets.model import CheckpointDataset, ModelDataset


def test_what_a_run_trains_is_what_another_opens(tmp_path: Path):
    model, folder = tiny_model(), str(tmp_path / "mini")
    checkpoint = CheckpointDataset(filepath=folder)
    assert not checkpoint.exists()
    checkpoint.save(model)
    assert checkpoint.exists()
    ids = random_ids(1, 9)
    assert abs(checkpoint.load().hidden(ids) - model.hidden(ids)).max() < 1e-5
    entry = ModelDataset(filepath=folder, device="cpu")
    handle = entry.load()
    assert (handle.source, handle.kind, handle.codon_markers) == (folder, "helix_mrna", "cds")
    assert json.loads(str(entry.preview()))["fingerprint"] == handle.fingerprint
    assert json.loads(str(checkpoint.preview()))["hidden_size"] == 16


def test_a_model_has_one_name():
    for named in ({}, {"filepath": "x", "hub_id": "a/b"}):
        with pytest.raises(DatasetError, match="either by its `filepath`"):
            ModelDataset(**named)
    with pytest.raises(DatasetError, match="cannot be saved"):
        ModelDataset(filepath="x").save(object())
