"""Labels that people gave: what is read, what is refused, and where."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from kedro.io.core import DatasetError

from helix_sae.datasets.labels import LABEL_COLUMNS, LabelsDataset, read_labels
from helix_sae.errors import DataError


def written(folder: Path, text: str) -> str:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return str(folder / "labels.csv")


def test_a_table_of_labels(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "author,Feature,label,extra\r\nMe,L4.mixer.466,\"a, b\",x\r\n\r\nMe,L4.mixer.466,'=odd,\r\n,L2.1,'tis,\r\n",
    )
    table = read_labels(path)
    assert tuple(table) == LABEL_COLUMNS
    assert table["feature"].tolist() == ["L4.mixer.466", "L4.mixer.466", "L2.1"]
    assert table["label"].tolist() == ["a, b", "=odd", "'tis"]
    assert table["author"].tolist() == ["Me", "Me", ""]
    assert table["date"].tolist() == ["", "", ""]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'feature' and 'label'"),
        ("feature,note\nL4.1,x\n", "no column 'label'"),
        ("feature,label\nL4.1,uAUG\n,stop\n", "line 3: a label needs a feature"),
        ("feature,label\nL4.1\n", "line 2: a label needs a feature"),
        ('feature,label\nL4.1,"a\n', "not CSV"),
    ],
)
def test_what_is_no_table_of_labels(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_labels(written(tmp_path, text))


def test_no_file_is_no_labels_and_none_is_written(tmp_path: Path) -> None:
    assert LabelsDataset().load().empty
    assert LabelsDataset().exists()
    with pytest.raises(DatasetError, match="labels are read and never written"):
        LabelsDataset(filepath=written(tmp_path, "")).save(pd.DataFrame())  # pyright: ignore
    with pytest.raises(DatasetError, match="nowhere"):
        LabelsDataset(filepath=str(tmp_path / "nowhere.csv")).load()
