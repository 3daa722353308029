"""`helix-sae store`: what it lists, what it finds damaged, and what it takes away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from activation_toys import files_of, save_version, toy_plan, toy_table
from click.testing import CliRunner
from kedro.io.core import Version

from helix_sae.activations import stream_activations
from helix_sae.cli import cli, main
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.errors import StoreError
from helix_sae.shards.maintenance import (
    abandoned_uploads,
    abort_uploads,
    find_garbage,
    list_versions,
    remove_garbage,
    restore,
    verify_store,
)
from helix_sae.storage import open_filesystem


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two versions that share shards."""
    save_version(str(tmp_path / "a"), "v1", toy_plan(toy_table(10)))
    save_version(str(tmp_path / "a"), "v2", toy_plan(toy_table(20)))
    return tmp_path / "a"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["store", *arguments])
    return result.exit_code, result.output


def test_listing(store: Path) -> None:
    versions = list_versions(str(store))
    assert [v.version for v in versions] == ["v1", "v2"]
    assert [v.manifest["n_sequences"] for v in versions] == [10, 20]
    code, output = run("ls", str(store))
    assert code == 0
    assert "20 sequences" in output
    assert f"{len(list((store / 'shards').rglob('*.safetensors')))} shards" in output


def test_it_is_a_command_of_kedro_too(store: Path, project_path: Path) -> None:
    command = [Path(sys.executable).with_name("kedro"), "store", "ls", str(store)]
    done = subprocess.run(command, cwd=project_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "20 sequences" in done.stdout


def test_verification(store: Path) -> None:
    assert run("verify", str(store))[0] == 0
    problems = list(verify_store(str(store)))
    shards = sorted((store / "shards").rglob("*.safetensors"))
    assert problems == [None] * len(shards)
    data = shards[0].read_bytes()
    shards[0].write_bytes(data[:-1] + bytes([data[-1] ^ 4]))
    shards[1].write_bytes(data[:-1])
    shards[2].unlink()
    found = {problem.path: problem.what for problem in verify_store(str(store)) if problem is not None}
    assert sorted(found) == [str(path) for path in shards[:3]]
    assert "SHA-256" in found[str(shards[0])]
    assert "is missing" in found[str(shards[2])]
    code, output = run("verify", str(store))
    assert code == 1
    assert "3 damaged" in output


def test_garbage(store: Path) -> None:
    before = files_of(store)
    (store / "shards" / ".tmp-host-1-0").touch()
    ActivationsDataset(filepath=str(store), version=Version(None, "v3")).save(
        stream_activations(toy_plan(toy_table(15, seed=9)))
    )
    (store / "v3" / "a" / "manifest.json").unlink()
    (store / "v3" / "a" / "index.parquet").unlink()
    garbage = find_garbage(str(store), 0)
    assert set(garbage) == {f"{store}/{name}" for name in set(files_of(store)) - set(before)}
    assert find_garbage(str(store), 3600) == {}
    old = next(iter(garbage))
    os.utime(old, (0, 0))
    assert set(find_garbage(str(store), 3600)) == {old}
    code, output = run("gc", str(store), "--older-than", "0")
    assert code == 0
    assert f"{len(garbage)} files" in output
    assert "could be removed" in output
    assert all(Path(path).exists() for path in garbage)
    code, output = run("gc", str(store), "--older-than", "0", "--delete")
    assert code == 0
    assert f"{store}/.trash/" in output
    assert {name: d for name, d in files_of(store).items() if ".trash" not in name} == before
    assert run("restore", str(store))[0] == 0
    assert set(find_garbage(str(store), 0)) == set(garbage)
    assert run("gc", str(store), "--older-than", "0", "--keep", "0", "--delete")[0] == 0
    assert files_of(store) == before


def test_a_copy_under_another_name_loses_nothing(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "act_backup"
    shutil.copytree(store, copy)
    before = files_of(copy)
    code, output = run("gc", str(copy), "--older-than", "0", "--delete")
    assert code == 0
    assert "0 files of 0 B" in output
    assert files_of(copy) == before
    assert "0 damaged" in run("verify", str(copy))[1]
    assert (
        f"{len(list((copy / 'shards').rglob('*.safetensors')))} files checked" in run("verify", str(copy))[1]
    )
    # Both together, from above.
    assert [v.root for v in list_versions(str(tmp_path))] == [str(store), str(copy)] * 2
    assert find_garbage(str(tmp_path), 0) == {}


def test_no_version_is_an_error_and_nothing_is_removed(store: Path) -> None:
    before = files_of(store / "shards")
    for command in (["ls"], ["verify"], ["gc", "--older-than", "0", "--delete"]):
        result = CliRunner().invoke(cli, ["store", *command, str(store / "shards")])
        assert isinstance(result.exception, StoreError)
        assert "no version of a store" in str(result.exception)
    assert files_of(store / "shards") == before


def test_nothing_is_removed_beside_a_damaged_manifest(store: Path) -> None:
    (store / "v2" / "a" / "manifest.json").write_text('{"format": "helix-sae-acti')
    before = files_of(store)
    for command in (["verify"], ["gc", "--older-than", "0", "--delete"]):
        result = CliRunner().invoke(cli, ["store", *command, str(store)])
        assert isinstance(result.exception, StoreError)
        assert "v2/a/manifest.json: the manifest is damaged" in str(result.exception)
    assert files_of(store) == before


def test_trash_is_emptied_when_its_time_is_over(store: Path) -> None:
    (store / "v2" / "a" / "manifest.json").unlink()
    garbage = find_garbage(str(store), 0)
    trash = remove_garbage(str(store), garbage, keep_s=3600)
    assert trash is not None
    remove_garbage(str(store), {}, keep_s=3600)
    assert Path(trash).exists()
    Path(trash).rename(Path(trash).with_name("2024-01-01T00.00.00.000000Z"))
    remove_garbage(str(store), {}, keep_s=3600)
    assert not (store / ".trash").exists()


def test_uploads_that_were_never_completed(s3_options: dict[str, Any]) -> None:
    url = "s3://store/uploads/activations"
    ActivationsDataset(filepath=url, version=Version(None, "v1"), fs_args=s3_options).save(
        stream_activations(toy_plan(toy_table(5)))
    )
    fs, root = open_filesystem(url, s3_options)
    for key in (f"{root}/shards/ab/x", "store/elsewhere/x"):
        fs.call_s3("create_multipart_upload", Bucket="store", Key=key.removeprefix("store/"))
    (upload,) = abandoned_uploads(url, 0, s3_options)
    assert upload["Key"] == "uploads/activations/shards/ab/x"
    abort_uploads(url, [upload], s3_options)
    assert abandoned_uploads(url, 0, s3_options) == []
    assert len(fs.list_multipart_uploads("store")) == 1


def test_every_file_system(store_place: tuple[str, dict[str, Any]]) -> None:
    url, options = store_place

    def save(version: str, n: int) -> None:
        dataset = ActivationsDataset(filepath=url, version=Version(None, version), fs_args=options)
        dataset.save(stream_activations(toy_plan(toy_table(n))))

    save("v1", 10)
    save("v2", 20)
    assert [v.version for v in list_versions(url, options)] == ["v1", "v2"]
    assert set(verify_store(url, options)) == {None}
    assert find_garbage(url, 0, options) == {}
    fs, root = open_filesystem(url, options)
    fs.rm_file(f"{root}/v2/{root.rsplit('/', 1)[1]}/manifest.json")
    fs.invalidate_cache()
    garbage = find_garbage(url, 0, options)
    assert len(garbage) > 1
    trash = remove_garbage(url, garbage, options, keep_s=3600)
    assert trash is not None
    assert find_garbage(url, 0, options) == {}
    assert restore(url, options) == sorted(garbage)
    assert find_garbage(url, 0, options) == garbage
    remove_garbage(url, garbage, options)
    fs.invalidate_cache()
    assert find_garbage(url, 0, options) == {}
    assert set(verify_store(url, options)) == {None}


def test_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        list_versions(str(tmp_path / "absent"))
    monkeypatch.setattr("sys.argv", ["helix-sae", "store", "ls", str(tmp_path / "absent")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "there is no store" in capsys.readouterr().err
