"""Base of the datasets that are a folder of files: whole or not there, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem
from kedro.io.core import Version, get_filepath_str, get_protocol_and_path

from helix_sae.datasets.versioned import WholeVersionsDataset
from helix_sae.errors import StoreError
from helix_sae.storage import (
    Verify,
    canonical_json,
    inside,
    is_local,
    open_filesystem,
    read_file,
    replace_folder,
    storage_errors,
    working_folder,
    write_file,
)
from helix_sae.temporary import elsewhere, sync_folder

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")

MANIFEST = "manifest.json"


class DirectoryDataset(WholeVersionsDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A folder of files with a manifest of their SHA-256.

    A subclass says how to write the data into a local folder and how to read it from one. The folder appears
    under its name when it is complete: by one rename on the local disk, by writing the manifest last
    elsewhere. A save that was killed is invisible.

    Parameters
    ----------
    filepath : str
        A local path or any fsspec URL.
    version : Version, optional
        Given by Kedro with ``versioned: true``.
    verify : {"full", "size"}
        What is checked when the folder is read: each file's SHA-256, or its size alone.
    credentials, fs_args : mapping, optional
        Of the fsspec file system.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.
    """

    format_name: ClassVar[str]
    """Written into the manifest, so that one kind of folder is not read as another."""

    def __init__(
        self,
        *,
        filepath: str,
        version: Version | None = None,
        verify: Verify = "full",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fs, path = open_filesystem(filepath, {**(credentials or {}), **(fs_args or {})})
        self._protocol, _ = get_protocol_and_path(filepath, version)
        self._url = filepath
        self._verify: Verify = verify
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        self.metadata = metadata
        super().__init__(
            filepath=PurePosixPath(path),
            version=version,
            exists_function=self._has_manifest,
            glob_function=self._fs.glob,
        )

    @abstractmethod
    def _write(self, data: Saved, folder: Path) -> None:
        """Write the data as files into a local, empty folder."""

    @abstractmethod
    def _read(self, folder: Path) -> Loaded:
        """Read the data from a local folder."""

    def save(self, data: Saved) -> None:
        """Write a version."""
        target = get_filepath_str(self._get_save_path(), self._protocol)
        place = target if is_local(self._fs) else None
        with storage_errors(target, "written"), working_folder(place) as folder:
            self._write(data, folder)
            write_file(_LOCAL, str(folder / MANIFEST), canonical_json(self._manifest(folder)))
            self._publish(folder, target)
        self._invalidate_cache()

    def load(self) -> Loaded:
        """Read a version, after checking it against its manifest."""
        source = get_filepath_str(self._get_load_path(), self._protocol)
        manifest = read_manifest(self._fs, source, self.format_name)
        folder = Path(source) if is_local(self._fs) else self._fetch(source, manifest)
        checkfiles_in(folder, manifest, self._verify, source)
        return self._read(folder)

    def _manifest(self, folder: Path) -> dict[str, object]:
        return {
            "format": self.format_name,
            "files": {name: _file_entry(folder / name) for name in files_in(folder)},
        }

    def _publish(self, folder: Path, target: str) -> None:
        """Make the finished folder visible under its name."""
        if is_local(self._fs):
            for part in sorted({folder, *(path.parent for path in folder.rglob("*"))}):
                sync_folder(str(part))
            replace_folder(folder, target)
            return
        if self._fs.exists(f"{target}/{MANIFEST}"):
            self._fs.rm(target, recursive=True)
        for name in [*files_in(folder), MANIFEST]:
            write_file(self._fs, f"{target}/{name}", (folder / name).read_bytes())

    def _fetch(self, source: str, manifest: Mapping[str, Any]) -> Path:
        """Copy a remote folder to this machine; kept until the dataset is released."""
        self._fetched = elsewhere()
        folder = Path(self._fetched.name)
        for name in cast("dict[str, Any]", manifest["files"]):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_file(self._fs, f"{source}/{name}"))
        return folder

    def _has_manifest(self, path: str) -> bool:
        return bool(self._fs.exists(f"{path}/{MANIFEST}"))

    def _exists(self) -> bool:
        return self._has_manifest(get_filepath_str(self._get_load_path(), self._protocol))

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._url,
            "protocol": self._protocol,
            "version": self._version,
            "verify": self._verify,
        }

    def _release(self) -> None:
        super()._release()
        self._fetched = None
        self._invalidate_cache()

    def _invalidate_cache(self) -> None:
        self._fs.invalidate_cache(str(self._filepath))


_LOCAL = LocalFileSystem()


def read_manifest(fs: Any, folder: str, format_name: str) -> dict[str, Any]:
    """Read the manifest of a folder.

    Raises
    ------
    StoreError
        If it is missing, damaged, or of another kind of folder.
    """
    path = f"{folder}/{MANIFEST}"
    try:
        manifest = cast("dict[str, Any]", json.loads(read_file(fs, path)))
        found, _ = manifest["format"], manifest["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: the manifest is damaged ({error!r}); load another version.") from error
    for name in manifest["files"]:
        inside(folder, name, path)
    if found != format_name:
        raise StoreError(
            f"{path}: a folder of {found!r} where {format_name!r} is expected; check the filepath."
        )
    return manifest


def checkfiles_in(folder: Path, manifest: Mapping[str, Any], verify: Verify, shown: str) -> None:
    """Compare the files of a folder with its manifest.

    Raises
    ------
    StoreError
        Naming the first file that is missing, cut short or changed.
    """
    for name, entry in cast("dict[str, dict[str, Any]]", manifest["files"]).items():
        path, where = folder / name, f"{shown}/{name}"
        if not path.is_file():
            raise StoreError(f"{where}: the file is missing. {_AGAIN}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise StoreError(f"{where}: {size} bytes where the manifest says {entry['bytes']}. {_AGAIN}")
        if verify == "full" and _digest(path) != entry["sha256"]:
            raise StoreError(
                f"{where}: its content has changed (its SHA-256 is not that of the manifest). {_AGAIN}"
            )


_AGAIN = "Load another version, or run the pipeline that makes it again."


def files_in(folder: Path) -> list[str]:
    """Files below a folder, relative to it, but for the manifest."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != MANIFEST)


def _file_entry(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"sha256": _digest(path), "bytes": path.stat().st_size}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
