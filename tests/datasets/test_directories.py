"""Datasets that are a folder: what is saved comes back, whole and checked, on every file system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from kedro.io.core import DatasetError, Version
from scipy import sparse

from helix_sae.activations import TokenRows
from helix_sae.datasets.codes import SequenceCodesDataset
from helix_sae.datasets.raw import SequenceFilesDataset
from helix_sae.datasets.saes import SaeCheckpointsDataset
from helix_sae.datasets.structures import StructureDataset, load_structure, save_structure
from helix_sae.errors import DataError, StoreError
from helix_sae.mrna.records import RawRecord, RawRecords, build_table

Place = tuple[str, dict[str, Any]]


class Foreign(NamedTuple):
    """Not a class of the package."""

    x: int


def everything() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "name": ["a", "b"],
            "bound": pd.array([1, None], dtype="Int64"),
            "kind": pd.Categorical(["x", None]),
            "value": [0.5, np.nan],
        }
    )
    return {
        "arrays": {
            dtype: rng.integers(0, 2, (2, 3)).astype(dtype)
            for dtype in ("float32", "float16", "int64", "bool")
        },
        "empty": np.empty((0, 4), dtype=np.float32),
        "transposed": rng.normal(size=(3, 2)).T,
        "texts": np.array(["ä", None, ""], dtype=object),
        "words": np.array([["ab", "c"]]),
        "csr": sparse.csr_array(rng.integers(0, 2, (4, 5)).astype(np.float32)),
        "csc": sparse.csc_matrix(np.eye(3)),
        "table": table,
        "tuple": (1, "two", None, True, 0.1, float("nan"), -float("inf")),
        "list": [np.float64(2.5), np.int32(3)],
        3: TokenRows(np.arange(2), np.arange(2), np.ones(2, dtype=bool)),
    }


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif sparse.issparse(a):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.toarray(), b.toarray())
    elif isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b or (a != a and b != b)


def structures_at(
    place: Place, load: str | None = None, save: str | None = None, **options: Any
) -> StructureDataset:
    return StructureDataset(filepath=place[0], version=Version(load, save), fs_args=place[1], **options)


def test_structures_come_back_as_they_were(store_place: Place) -> None:
    dataset = structures_at(store_place, save="v1")
    assert not dataset.exists()
    dataset.save(everything())
    assert dataset.exists()
    assert_same(structures_at(store_place).load(), everything())
    structures_at(store_place, save="v2").save({"x": 1})
    dataset.release()
    assert structures_at(store_place).load() == {"x": 1}
    assert_same(structures_at(store_place, load="v1").load(), everything())
    assert dataset.list_versions(full_path=False) == ["v2", "v1"]


def test_the_preview_of_a_structure_names_its_parts(store_place: Place) -> None:
    dataset = structures_at(store_place, save="v1")
    dataset.save({**everything(), "many": list(range(40)), "few": np.float32(2)})
    shown = json.loads(dataset.preview())
    assert shown["csr"] == "sparse csr (4, 5)"
    assert shown["texts"] == "texts (3,)"
    assert shown["table"] == "table"
    assert shown["tuple"] == {"0": 1, "1": "two", "2": None, "3": True, "4": 0.1, "5": "nan", "6": "-inf"}
    assert shown["arrays"]["float32"] == ("array F32 (2, 3)" if "://" not in store_place[0] else "array")
    assert "..." in shown  # more parts than it names
    again = structures_at(store_place, save="v2")
    again.save(list(range(40)))
    assert json.loads(again.preview()) == {**{str(i): i for i in range(12)}, "...": "28 more"}


@pytest.mark.parametrize(
    "value",
    [
        lambda: None,
        {1, 2},
        Foreign(1),
        np.array([object()]),
        sparse.coo_array(np.eye(2)),
        np.array([1j]),
        b"x",
    ],
)
def test_what_is_no_plain_data_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(StoreError, match=r"data\[part\]"):
        save_structure({"part": value}, tmp_path)


def test_nothing_but_data_classes_of_the_package_is_built(tmp_path: Path) -> None:
    save_structure(TokenRows(np.arange(2), np.arange(2), np.ones(2, dtype=bool)), tmp_path)
    path = tmp_path / "structure.json"
    good = path.read_text()
    for name in (
        "os.system",
        "subprocess.Popen",
        "helix_sae.errors.StoreError",
        "helix_sae.datasets.structures.json",
    ):
        path.write_text(good.replace("helix_sae.activations.activations.TokenRows", name))
        with pytest.raises(StoreError, match="no data class"):
            load_structure(tmp_path)
    path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        load_structure(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    place: Place = (str(tmp_path / "s"), {})
    structures_at(place, save="v1").save(everything())
    folder = tmp_path / "s" / "v1" / "s"
    arrays = folder / "arrays.safetensors"
    good = arrays.read_bytes()
    arrays.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DatasetError, match=r"arrays\.safetensors: its content has changed"):
        structures_at(place).load()
    structures_at(place, verify="size").load()
    arrays.write_bytes(good[:-1])
    with pytest.raises(DatasetError, match=r"arrays\.safetensors: \d+ bytes where the manifest says"):
        structures_at(place, verify="size").load()
    arrays.unlink()
    with pytest.raises(DatasetError, match=r"arrays\.safetensors: the file is missing"):
        structures_at(place).load()
    with pytest.raises(
        DatasetError, match="a folder of 'helix-sae-structure/1' where 'helix-sae-checkpoints/1'"
    ):
        SaeCheckpointsDataset(filepath=place[0], version=Version(None, None)).load()
    (folder / "manifest.json").write_text('{"format": "helix-sae-structure/1", "files": {"../../x": {}}}')
    with pytest.raises(DatasetError, match="not inside its folder"):
        structures_at(place).load()
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"manifest\.json: the manifest is damaged"):
        structures_at(place).load()


def test_a_save_that_fails_leaves_nothing_visible(tmp_path: Path) -> None:
    place: Place = (str(tmp_path / "s"), {})
    structures_at(place, save="v1").save({"x": 1})
    with pytest.raises(DatasetError, match="cannot be stored"):
        structures_at(place, save="v2").save({"x": np.arange(4), "bad": {1}})
    assert structures_at(place).load() == {"x": 1}
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]


def test_without_versions_a_save_replaces(store_place: Place) -> None:
    dataset = StructureDataset(filepath=store_place[0], fs_args=store_place[1])
    dataset.save({"x": np.arange(3), "t": pd.DataFrame({"a": [1]})})
    dataset.save({"y": 2})
    assert dataset.load() == {"y": 2}


def test_killed_between_two_renames(tmp_path: Path) -> None:
    place = tmp_path / "s"
    dataset = StructureDataset(filepath=str(place))
    dataset.save({"x": 1})
    # Renamed are the manifest, what stood there before, and the new folder.
    script = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parents[1] / "activations")!r}]
from activation_toys import die_at_rename
from helix_sae.datasets.structures import StructureDataset
die_at_rename(3)
StructureDataset(filepath={str(place)!r}).save({{"x": 2}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = [load_structure(path) for path in tmp_path.iterdir()]
    assert sorted(structure["x"] for structure in kept) == [1, 2], "neither is lost, both are out of sight"
    assert not dataset.exists()
    dataset.save({"x": 3})
    assert dataset.load() == {"x": 3}
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_may_be_read_by_whom_the_process_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        StructureDataset(filepath=str(tmp_path / "s")).save(
            {"x": np.arange(3), "t": pd.DataFrame({"a": [1]})}
        )
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()} == {0o640}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o750


def test_equal_structures_have_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_structure(everything(), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_autoencoders(store_place: Place) -> None:
    import torch

    from helix_sae.sae import ArrayBatches, TopKConfig, train_saes

    x = np.random.default_rng(0).normal(size=(256, 6)).astype(np.float32)
    sites = ("layers.2.mixer", "layers.0")
    result = train_saes(
        ArrayBatches(dict.fromkeys(sites, x), 64, seed=0), {"k": TopKConfig(k=2, expansion_factor=2)}
    )
    saes = {site: result.by_site()[site] for site in sites}
    dataset = SaeCheckpointsDataset(
        filepath=store_place[0], version=Version(None, "v"), fs_args=store_place[1]
    )
    dataset.save(saes)
    loaded = dataset.load()
    assert tuple(loaded) == sites
    for site in sites:
        codes = loaded[site].encode(torch.tensor(x))
        torch.testing.assert_close(codes, saes[site].encode(torch.tensor(x)), rtol=0, atol=0)
    assert json.loads(dataset.preview())["layers.0"]["architecture"] == "topk"
    with pytest.raises(DatasetError, match="cannot be the name of a folder"):
        SaeCheckpointsDataset(
            filepath=store_place[0], version=Version(None, "w"), fs_args=store_place[1]
        ).save({"../x": saes["layers.0"]})


def test_sequence_codes(store_place: Place) -> None:
    from anndata import AnnData

    x = sparse.csr_matrix(np.eye(3, 4, dtype=np.float32))
    obs = pd.DataFrame({"functional_mrl": [1.0, np.nan, 2.0]}, index=["a", "b", "c"])
    codes = {"layers.0": AnnData(x, obs=obs, layers={"max": x * 2}, uns={"site": "layers.0"})}
    dataset = SequenceCodesDataset(
        filepath=store_place[0], version=Version(None, "v"), fs_args=store_place[1]
    )
    dataset.save(codes)
    loaded = dataset.load()["layers.0"]
    np.testing.assert_array_equal(loaded.X.toarray(), x.toarray())
    np.testing.assert_array_equal(loaded.layers["max"].toarray(), 2 * x.toarray())
    pd.testing.assert_frame_equal(loaded.obs, obs)
    assert "3" in json.loads(dataset.preview())["layers.0"]


def test_raw_files_and_chunks(store_place: Place) -> None:
    folder = f"{store_place[0]}/demo"
    dataset = SequenceFilesDataset(filepath=folder, format="json", fs_args=store_place[1])
    assert not dataset.exists()
    records = [{"sequence": "ACGT" + "A" * (i % 7), "metadata": {"source": "x"}} for i in range(5_003)]
    dataset.save(records)
    assert dataset.exists()
    raw = dataset.load()
    assert isinstance(raw, RawRecords)
    assert [record.values["sequence"] for record in raw.records] == [record["sequence"] for record in records]
    assert raw.records[-1].file == f"{folder}/mRNA_dataset_chunk_0001.json"
    assert dataset.preview(2)["columns"] == ["source", "sequence"]
    dataset.save(records[:2])
    assert len(dataset.load().records) == 2


def test_raw_files_of_other_formats(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text(">a\nACATGTAA\n")
    (tmp_path / "x.gff3").write_text("a\tx\tCDS\t3\t8\t.\t+\t0\t.\n")
    dataset = SequenceFilesDataset(filepath=str(tmp_path / "x.fa"), gff3="x.gff3")
    table, _ = build_table(dataset.load())
    assert table["cds_start"].tolist() == [2]
    with pytest.raises(DatasetError, match="only chunks in the format json"):
        dataset.save([])
    with pytest.raises(DatasetError, match="no such file"):
        SequenceFilesDataset(filepath=str(tmp_path / "absent.csv")).load()
    with pytest.raises(DataError, match="1 of 1"):
        build_table(RawRecords([RawRecord("f", "record 0", {"sequence": "X"})], []))
