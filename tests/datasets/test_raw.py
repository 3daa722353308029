"""An input of sequences that may be left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kedro.io.core import DatasetError

from helix_sae.datasets.raw import SequenceFilesDataset
from helix_sae.errors import DataError


def test_no_file_means_no_records():
    dataset = SequenceFilesDataset(filepath=None)
    assert dataset.exists()
    assert dataset.load().records == dataset.load().rejected == []
    with pytest.raises(DatasetError, match="filepath"):
        SequenceFilesDataset(filepath=None, format="json").save([])


def test_a_file_is_read_as_before(tmp_path: Path):
    path = tmp_path / "more.csv"
    path.write_text("utr,mrl\nACGU,1.5\n")
    (record,) = SequenceFilesDataset(filepath=str(path)).load().records
    assert dict(record.values) == {"utr": "ACGU", "mrl": "1.5"}


def test_a_pipe_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    """Nor by what identifies the input of a run, in a folder or by itself."""
    os.mkfifo(tmp_path / "y.fa")
    with pytest.raises(DataError, match="not a regular file"):
        SequenceFilesDataset(filepath=str(tmp_path / "y.fa")).identify()
    (tmp_path / "x.fa").write_text(">a\nACGU\n")
    dataset = SequenceFilesDataset(filepath=str(tmp_path))
    assert len(dataset.identify()["sha256"]) == 64
    assert len(dataset.load().records) == 1
    with pytest.raises(DataError, match=r"absent\.gff3: there is no such file. Correct the path"):
        SequenceFilesDataset(filepath=str(tmp_path / "x.fa"), gff3="absent.gff3").identify()
