"""docs/trust.md, sentence by sentence: what a file that somebody else made can, and above all cannot, do here."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from activation_toys import save_version, toy_plan, toy_table
from kedro.io import DatasetError
from kedro.io.core import Version

from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.datasets.codes import SequenceCodesDataset
from helix_sae.datasets.directory import MANIFEST
from helix_sae.datasets.structures import StructureDataset
from helix_sae.errors import ModelError, StoreError
from helix_sae.models.checkpoints import check_declared, configuration, weight_files
from helix_sae.storage import inside, sha256
from helix_sae.temporary import own_folder

OUTSIDE = ["/etc/passwd", "../secret", "a/../../secret", "~root/x", "c:secret", "..\\secret", "", None, 3]


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_that_lead_out_of_a_folder(name: object) -> None:
    with pytest.raises(StoreError, match=r"m\.json: names the file .* which is not inside its folder"):
        inside("/store", name, "m.json")
    assert inside("/store", "shards/ab/x.safetensors", "m.json") == "/store/shards/ab/x.safetensors"


@pytest.mark.parametrize("place", ["index", "shard"])
def test_activations_read_no_file_outside_their_store(place: str, tmp_path: Path) -> None:
    save_version(str(tmp_path / "a"), "v", toy_plan(toy_table(5)))
    path = tmp_path / "a" / "v" / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest["index"] if place == "index" else manifest["shards"][0]
    original = path.parent / entry["file"] if place == "index" else tmp_path / "a" / entry["file"]
    (tmp_path / "outside").write_bytes(original.read_bytes())
    entry["file"] = str(tmp_path / "outside")
    manifest.pop("sha256", None)
    path.write_text(json.dumps(manifest))
    with pytest.raises((StoreError, DatasetError), match="not inside its folder"):
        ActivationsDataset(filepath=str(tmp_path / "a"), version=Version("v", None)).load()


def tamper(folder: Path, name: str, content: bytes) -> None:
    """Change a file together with the manifest that states its SHA-256, as somebody with a purpose would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": sha256(content), "bytes": len(content)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_structures_read_no_table_outside_their_folder(tmp_path: Path) -> None:
    pd.DataFrame({"secret": [1]}).to_parquet(tmp_path / "secret.parquet")
    dataset = StructureDataset(filepath=str(tmp_path / "s"))
    dataset.save({"table": pd.DataFrame({"a": [1]})})
    tree = json.loads((tmp_path / "s" / "structure.json").read_text())
    tree["values"][0]["file"] = "../secret.parquet"
    tamper(tmp_path / "s", "structure.json", json.dumps(tree).encode())
    with pytest.raises(DatasetError, match="not inside its folder"):
        dataset.load()


@pytest.fixture
def codes(tmp_path: Path) -> tuple[SequenceCodesDataset, Path]:
    dataset = SequenceCodesDataset(filepath=str(tmp_path / "codes"))
    dataset.save({"layers.0": anndata.AnnData(np.eye(3, dtype=np.float32))})
    return dataset, tmp_path / "codes"


def test_codes_read_no_file_outside_their_folder(codes: tuple[SequenceCodesDataset, Path]) -> None:
    dataset, folder = codes
    tamper(folder, "sites.json", json.dumps(["../../secret"]).encode())
    with pytest.raises(DatasetError, match="not inside its folder"):
        dataset.load()


def external_link(file: Any, secret: Path) -> None:
    file["obs/secret"] = h5py.ExternalLink(str(secret), "/x")


def external_storage(file: Any, secret: Path) -> None:
    file.create_dataset("obs/secret", (8,), dtype="u1", external=[(str(secret), 0, 8)])


def virtual(file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape=(3,))
    file.create_virtual_dataset("obs/secret", layout)


def enormous(file: Any, secret: Path) -> None:
    file.create_dataset("obs/secret", (10**13,), dtype="f8", chunks=(10**6,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (external_link, "secret is a link"),
        (external_storage, "lies in another file"),
        (virtual, "lies in another file"),
        (enormous, "it states 80,000,000,000,"),
    ],
)
def test_hdf5_has_all_its_data_in_itself_and_no_more_than_it_can_hold(
    change: Any, said: str, codes: tuple[SequenceCodesDataset, Path], tmp_path: Path
) -> None:
    dataset, folder = codes
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = [1, 2, 3]
    path = folder / "layers.0.h5ad"
    with h5py.File(path, "a") as file:
        change(file, tmp_path / "secret.h5")
    tamper(folder, path.name, path.read_bytes())
    with pytest.raises(DatasetError, match=said):
        dataset.load()


def checkpoint(project_path: Path, tmp_path: Path, **changes: object) -> Path:
    """helix_mini with another config.json."""
    source = project_path / "data" / "06_models" / "helix_mini"
    for name in ("model.safetensors", "heads.safetensors", "heads.json"):
        (tmp_path / name).symlink_to(source / name)
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"num_hidden_layers": 100_000},
            "states num_hidden_layers: 100,000, but the weights have room for no more than 9",
        ),
        ({"hidden_size": 10**9}, "states hidden_size: 1,000,000,000"),
        (
            {"quantization_config": {"load_in_4bit": True}},
            "quantization_config; quantized weights are not read",
        ),
    ],
)
def test_a_config_that_states_more_than_the_weights_have(
    changes: dict[str, object], said: str, project_path: Path, tmp_path: Path
) -> None:
    from helix_sae.models.registry import handle_for, open_model

    folder = checkpoint(project_path, tmp_path, **changes)
    with pytest.raises(ModelError, match=said):
        open_model(handle_for(folder, device="cpu"))


def test_a_whole_config_and_one_that_is_too_long(project_path: Path, tmp_path: Path) -> None:
    folder = checkpoint(project_path, tmp_path)
    check_declared(folder)
    (folder / "config.json").write_text(" " * 2**25 + "{}")
    with pytest.raises(ModelError, match="it has 33,554,434 bytes"):
        configuration(folder)


def test_an_index_of_weights_names_no_file_elsewhere(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="not inside the folder"):
        weight_files(tmp_path)


def test_scratch_is_the_users_own(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "new" / "scratch")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert own_folder(folder) == folder
    folder.chmod(0o777)
    with pytest.raises(StoreError, match="not your own"):
        own_folder(folder)
    folder.chmod(0o755)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(StoreError, match="not your own"):
        own_folder(tmp_path / "link")
    if os.getuid() == 0:
        os.chown(folder, 12345, 12345)
        with pytest.raises(StoreError, match="belongs to user 12345"):
            own_folder(folder)


def test_temporary_folders_of_two_users_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from helix_sae import settings

    names = set()
    for user in (1000, 1001):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        names.add(settings._temporary_folder("helix-sae-training"))
    assert len(names) == 2


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A file that would run a command when it is unpickled does nothing but be refused."""
    script = f"""
import os, pickle
class Evil:
    def __reduce__(self):
        return (os.mkdir, ({str(tmp_path / "ran")!r},))
from pathlib import Path
folder = Path({str(tmp_path)!r})
for name in ("model.safetensors", "pytorch_model.bin"):
    (folder / name).write_bytes(pickle.dumps(Evil()))
(folder / "config.json").write_text("{{}}")
from helix_sae.models.registry import handle_for, open_model
try:
    open_model(handle_for(folder, device="cpu"))
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == ["ModelError"], done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()
