"""Tables in Parquet: what comes back, and what Kedro-Viz is given to show."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.io.core import DatasetError, Version

from helix_sae.datasets.tables import ParquetTableDataset


def everything() -> pd.DataFrame:
    """A column of each kind that a table of this project may hold."""
    return pd.DataFrame(
        {
            "name": ["a", None, "c"],
            "start": pd.array([1, None, 3], "Int64"),
            "flag": pd.array([True, None, False], "boolean"),
            "value": [0.5, np.nan, 2.0],
            "positions": [[22, 23], [], [1]],
            "kind": pd.Categorical(["x", None, "y"]),
            "when": pd.to_datetime(["2024-01-02", None, "2024-03-04"]),
            "count": np.array([1, 2, 3], dtype=np.int32),
        }
    )


def test_the_preview_is_json_whatever_the_cells_hold(tmp_path: Path) -> None:
    dataset = ParquetTableDataset(filepath=(tmp_path / "t.parquet").as_posix())
    dataset.save(everything())
    shown = dataset.preview()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["columns"] == list(everything().columns)
    assert shown["index"] == [0, 1, 2]
    assert shown["data"][0] == ["a", 1, True, 0.5, "22, 23", "x", "2024-01-02 00:00:00", 1]
    assert shown["data"][1] == [None, None, None, None, "", None, None, 2]
    assert inspect.signature(dataset.preview).return_annotation == "TablePreview"


@pytest.mark.parametrize("nrows", [0, 2, 9])
def test_the_preview_is_the_head_of_the_latest_version(tmp_path: Path, nrows: int) -> None:
    for version, table in (("v1", everything().head(1)), ("v2", everything())):
        ParquetTableDataset(
            filepath=(tmp_path / "t.parquet").as_posix(), version=Version(None, version)
        ).save(table)
    dataset = ParquetTableDataset(filepath=(tmp_path / "t.parquet").as_posix(), version=Version(None, None))
    shown = dataset.preview(nrows)
    assert [row[-1] for row in shown["data"]] == [1, 2, 3][:nrows]
    assert len(shown["columns"]) == 8


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    dataset = ParquetTableDataset(filepath=(tmp_path / "t.parquet").as_posix())
    table = everything().drop(columns="positions")
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table)


def test_an_optional_table_that_is_not_there_has_no_columns(tmp_path: Path) -> None:
    path = str(tmp_path / "designed_pairs.parquet")
    optional = ParquetTableDataset(filepath=path, optional=True)
    assert optional.exists()
    assert optional.load().columns.empty
    with pytest.raises(DatasetError):
        ParquetTableDataset(filepath=path).load()
    optional.save(pd.DataFrame({"source": ["ACGU"]}))
    assert optional.load()["source"].tolist() == ["ACGU"]
