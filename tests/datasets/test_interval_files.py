"""Intervals of the user's own as a catalog entry: a file, or none."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io.core import DatasetError

from helix_sae.datasets.raw import IntervalsDataset
from helix_sae.errors import DataError


def test_no_file_is_an_empty_table_that_is_there() -> None:
    dataset = IntervalsDataset()
    assert dataset.preview() == {"index": [], "columns": list(dataset.load().columns), "data": []}
    assert dataset.exists()
    assert list(dataset.load().columns) == ["sequence_id", "start", "end", "name"]
    assert dataset.load().empty


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sites.bed"
    dataset = IntervalsDataset(filepath=str(path))
    assert not dataset.exists()
    path.write_text("a\t1\t4\tclip\n")
    assert dataset.exists()
    assert dataset.load().to_numpy().tolist() == dataset.preview()["data"] == [["a", 1, 4, "clip"]]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sites.bed").write_text("a\t1\n")
    with pytest.raises((DataError, DatasetError), match=r"sites\.bed, line 1: 2 fields"):
        IntervalsDataset(filepath=str(tmp_path / "sites.bed")).load()


def test_it_is_never_written() -> None:
    with pytest.raises(DatasetError, match="never written"):
        IntervalsDataset(filepath="x.bed").save(IntervalsDataset().load())  # pyright: ignore[reportArgumentType]
