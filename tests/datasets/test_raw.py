"""An input of sequences that may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io.core import DatasetError

from helix_sae.datasets.raw import SequenceFilesDataset


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
