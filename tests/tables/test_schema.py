"""Schemas of tables: what they allow, what they name, and that the dataset asks them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kedro.io.core import DatasetError

from helix_sae.datasets.tables import CsvTableDataset
from helix_sae.errors import DataError
from helix_sae.left_out import LeftOut
from helix_sae.tables import SCHEMAS


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_allows_its_own_example(name: str) -> None:
    SCHEMAS[name].check(SCHEMAS[name].example(20), name)
    SCHEMAS[name].check(SCHEMAS[name].example(20).iloc[:0], name)


def test_every_column_that_does_not_fit_is_named() -> None:
    table = SCHEMAS["sae_metrics"].example(5).drop(columns="mse")
    table["cosine"] = 1.5
    table["site"] = [None, *table["site"][1:]]
    table["n_tokens"] = 0.5
    table["l0"] = "many"
    with pytest.raises(DataError) as caught:
        SCHEMAS["sae_metrics"].check(table, "sae_metrics")
    said = str(caught.value)
    for part in (
        "mse is missing",
        "cosine: 1.5 is above 1",
        "site: 1 values are missing, the first in row 0",
        "n_tokens is no count: 0.5",
        "l0 is no number: 'many'",
    ):
        assert part in said
    assert "dead_share" not in said


def test_a_share_that_is_not_known_is_allowed() -> None:
    SCHEMAS["sae_metrics"].check(SCHEMAS["sae_metrics"].example(3).assign(dead_share=np.nan), "sae_metrics")


def test_rounding_is_no_mistake() -> None:
    table = SCHEMAS["sae_metrics"].example(2)
    SCHEMAS["sae_metrics"].check(table.assign(dead_share=[1 + 1e-14, -1e-14]), "sae_metrics")
    with pytest.raises(DataError, match="dead_share"):
        SCHEMAS["sae_metrics"].check(table.assign(dead_share=[1 + 1e-6, 0.5]), "sae_metrics")


def test_the_dataset_checks_what_it_saves(tmp_path: Path) -> None:
    dataset = CsvTableDataset(filepath=str(tmp_path / "sae_metrics.csv"))
    with pytest.raises(DatasetError, match="The table sae_metrics is not as its schema says"):
        dataset.save(SCHEMAS["sae_metrics"].example(3).assign(dead_share=7.0))
    assert not dataset.exists()
    dataset.save(LeftOut("autoencoders", "there was nothing to train on").table())
    dataset.save(SCHEMAS["sae_metrics"].example(3))
    assert len(dataset.load()) == 3
