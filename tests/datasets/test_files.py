"""Datasets of one file: what they write, what they refuse, and which version they take."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io.core import DatasetError, Version
from safetensors.numpy import load_file, save_file
from scipy import sparse

from helix_sae.datasets.directory import MANIFEST
from helix_sae.datasets.files import CHECKSUM, HtmlDataset, JsonDataset, TextDataset
from helix_sae.datasets.pages import PagesDataset
from helix_sae.datasets.structures import StructureDataset
from helix_sae.datasets.tables import CsvTableDataset
from helix_sae.storage import sha256_of_file

Place = tuple[str, dict[str, Any]]


def text_at(place: Place, load: str | None = None, save: str | None = None) -> TextDataset:
    return TextDataset(filepath=f"{place[0]}/t.txt", version=Version(load, save), fs_args=place[1])


def test_a_version_is_its_file_and_its_checksum(store_place: Place) -> None:
    text_at(store_place, save="v1").save("first")
    text_at(store_place, save="v2").save("second")
    dataset = text_at(store_place)
    assert dataset.load() == "second"
    assert text_at(store_place, load="v1").load() == "first"
    with pytest.raises(DatasetError, match="must not exist"):
        text_at(store_place, save="v2").save("third")
    fs, path = dataset._fs, str(dataset._filepath)
    fs.rm_file(f"{path}/v2/{CHECKSUM}")
    assert text_at(store_place).load() == "first"
    with pytest.raises(DatasetError, match=r"v2/t\.txt: its checksum is missing or damaged"):
        text_at(store_place, load="v2").load()
    fs.pipe_file(f"{path}/v1/t.txt", b"firsT")
    with pytest.raises(DatasetError, match=r"v1/t\.txt: its content has changed.*Load another version"):
        text_at(store_place, load="v1").load()


def test_a_version_that_a_run_was_killed_at_is_passed_over(tmp_path: Path) -> None:
    """A run writes the provenance after the data; in between it may be killed."""
    place = (str(tmp_path), {})
    for version in ("v1", "v2"):
        text_at(place, save=version).save(version)
    assert text_at(place).load() == "v2"
    (tmp_path / "t.txt" / "v1" / "provenance.json").write_text("{}")
    assert text_at(place).load() == "v1"
    assert text_at(place).list_versions(full_path=False) == ["v1"]
    assert text_at(place, load="v2").load() == "v2"


def test_without_versions_a_file_is_replaced(tmp_path: Path) -> None:
    dataset = JsonDataset(filepath=str(tmp_path / "a.json"))
    assert not dataset.exists()
    dataset.save({"a": 1})
    dataset.save({"a": 2})
    assert dataset.load() == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DatasetError, match=r"a\.json: cannot be read"):
        dataset.load()


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=6) | st.sampled_from(
    ["=1+1", "@SUM(A1)", "+1 a", "-a", "'=1", "''=1", "'a", "\t=1", "a=1"]
)


@given(
    names=st.lists(
        TEXTS.filter(lambda text: text.strip() not in ("", *pd._libs.parsers.STR_NA_VALUES)), min_size=1
    )
)
def test_no_text_of_a_csv_is_a_formula_and_all_come_back(tmp_path_factory: Any, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    dataset = CsvTableDataset(filepath=str(path), load_args={"dtype": {"name": str}})
    table = pd.DataFrame({"name": names, "value": -np.arange(len(names)) - 0.5})
    dataset.save(table)
    with path.open(encoding="utf-8", newline="") as file:
        written = [row[0] for row in csv.reader(file)]
    assert not [text for text in written if text.startswith(("=", "+", "-", "@", "\t", "\r"))]
    pd.testing.assert_frame_equal(dataset.load(), table)


def test_column_names_are_no_formulas_either_and_numbers_stay(tmp_path: Path) -> None:
    dataset = CsvTableDataset(filepath=str(tmp_path / "a.csv"))
    table = pd.DataFrame({"=cmd": [-1.5, 2.0], "mixed": ["-x", None], "flag": [True, False]})
    dataset.save(table)
    assert (tmp_path / "a.csv").read_text() == "'=cmd,mixed,flag\n-1.5,'-x,True\n2.0,,False\n"
    pd.testing.assert_frame_equal(dataset.load(), table.astype({"mixed": object}), check_dtype=False)
    dataset.save(pd.DataFrame())
    assert dataset.load().empty


def test_the_preview_of_a_page_is_what_its_headings_say(tmp_path: Path) -> None:
    dataset = HtmlDataset(filepath=str(tmp_path / "a.html"))
    dataset.save(
        "<style>p{}</style><h1>Run</h1><p>One &amp; <b>two</b>.</p><h2 id='x'>Data</h2><div>no</div>"
    )
    shown = dataset.preview()
    assert shown["data"] == [["Run", "One & two ."], ["Data", ""]]
    assert json.loads(json.dumps(shown)) == shown


def test_pages_are_a_folder_of_files(tmp_path: Path) -> None:
    dataset = PagesDataset(filepath=str(tmp_path / "atlas"))
    files = {"index.html": b"<h1>Atlas</h1><p>Says.</p>", "cards/00000.js": b"0;"}
    dataset.save(files)
    assert dataset.load() == files
    assert dataset.preview()["data"] == [["Atlas", "Says."]]
    (tmp_path / "atlas" / "cards" / "00000.js").write_bytes(b"1;")
    with pytest.raises(DatasetError, match=r"cards/00000\.js: its content has changed"):
        dataset.load()


def tampered(tmp_path: Path, part: str, change: Any) -> StructureDataset:
    """A stored sparse matrix of which one array was changed, with checksums to match."""
    dataset = StructureDataset(filepath=str(tmp_path / "s"))
    dataset.save({"codes": sparse.csr_array(np.eye(4, 5, dtype=np.float32))})
    path = tmp_path / "s" / "arrays.safetensors"
    arrays = load_file(path)
    name = next(n for n in arrays if n.endswith(part))
    arrays[name] = change(arrays[name])
    save_file(arrays, path)
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    entry = manifest["files"][path.name]
    entry.update(sha256=sha256_of_file(str(path)), bytes=path.stat().st_size)
    (tmp_path / "s" / MANIFEST).write_text(json.dumps(manifest))
    return dataset


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (".indices", lambda a: np.array([2**40, *a[1:]])),
        (".indices", lambda a: np.array([-1, *a[1:]], dtype=a.dtype)),
        (".indptr", lambda a: a[::-1].copy()),
        (".indptr", lambda a: np.array([0, 4, 1, 3, 4], dtype=a.dtype)),
        (".indptr", lambda a: np.array([0, 1, 2, 3, 9], dtype=a.dtype)),
        (".data", lambda a: np.array([np.nan, *a[1:]], dtype=a.dtype)),
    ],
)
def test_sparse_matrices_are_checked_before_compiled_code_sees_them(
    tmp_path: Path, part: str, change: Any
) -> None:
    with pytest.raises(DatasetError, match=r"sparse|structure cannot be read"):
        tampered(tmp_path, part, change).load()
