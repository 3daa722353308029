"""Base of the datasets over a store of shards (:mod:`helix_sae.shards` has its layout)."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import PurePosixPath
from typing import Any, ClassVar, Generic, TypeVar

from kedro.io.core import Version, get_filepath_str, get_protocol_and_path
from kedro_datasets._typing import JSONPreview

from helix_sae.datasets.versioned import WholeVersionsDataset
from helix_sae.shards.manifest import read_manifest
from helix_sae.storage import MANIFEST, Verify, open_filesystem

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class ShardsDataset(WholeVersionsDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """Versions of a store of shards: what they hold is computed as it is saved.

    What is not to be kept (``keep`` is false) is handed on within the run.

    Parameters
    ----------
    filepath : str
        Root of the store; a local path or any fsspec URL.
    version : Version, optional
        Given by Kedro with ``versioned: true``.
    verify : {"full", "size"}
        What is checked of each shard when it is first read: its SHA-256, or its size alone.
    credentials, fs_args : mapping, optional
        Of the fsspec file system.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.
    """

    format_name: ClassVar[str]
    """Of the manifests."""

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
        self._storage_options = {**(credentials or {}), **(fs_args or {})}
        self._fs, path = open_filesystem(filepath, self._storage_options)
        self._protocol, _ = get_protocol_and_path(filepath, version)
        self._url = filepath
        self._verify: Verify = verify
        self._handed_on: Any = None
        self.metadata = metadata
        super().__init__(
            filepath=PurePosixPath(path),
            version=version,
            exists_function=self._has_manifest,
            glob_function=self._fs.glob,
        )

    @abstractmethod
    def _open(self, folder: str) -> Loaded:
        """Open the version in a folder."""

    @abstractmethod
    def _store(self, data: Saved, folder: str) -> None:
        """Have the shards made that the store lacks, then write the version's index and manifest."""

    def load(self) -> Loaded:
        """Open the version for reading; nothing but its manifest and index is read yet."""
        if self._handed_on is not None:
            return self._handed_on
        return self._open(get_filepath_str(self._get_load_path(), self._protocol))

    def save(self, data: Saved) -> None:
        """Have the shards made that the store lacks, then write the version's index and manifest."""
        if not getattr(data, "keep", True):
            self._handed_on = data
            return
        self._store(data, get_filepath_str(self._get_save_path(), self._protocol))
        self._invalidate_cache()

    def resolve_load_version(self) -> str | None:
        """Version to load: what is handed on belongs to the run that made it."""
        return super().resolve_load_version() if self._handed_on is None else self.resolve_save_version()

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
        self._handed_on = None
        self._invalidate_cache()

    def _invalidate_cache(self) -> None:
        self._fs.invalidate_cache(str(self._filepath))

    def preview(self) -> JSONPreview:
        """Return the manifest without its list of shards."""
        folder = get_filepath_str(self._get_load_path(), self._protocol)
        manifest = read_manifest(self._fs, folder, (self.format_name,))
        return JSONPreview(json.dumps({key: value for key, value in manifest.items() if key != "shards"}))
