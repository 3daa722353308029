"""The Kedro dataset over the store of activations (:mod:`helix_sae.activations.writing` has its layout)."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from kedro.io.core import AbstractVersionedDataset, Version, get_filepath_str, get_protocol_and_path
from kedro_datasets._typing import JSONPreview

from helix_sae.activations.plan import ExtractionPlan
from helix_sae.activations.store import ActivationStore
from helix_sae.activations.stream import ActivationStream
from helix_sae.activations.writing import MANIFEST, save_activations
from helix_sae.storage import Verify, open_filesystem


class ActivationsDataset(
    AbstractVersionedDataset[ExtractionPlan | ActivationStream, ActivationStore | ActivationStream]
):
    """Activations of a model: saves an :class:`ExtractionPlan` by computing it, loads an :class:`ActivationStore`.

    An :class:`ActivationStream` is not stored but handed on as it is, to the other nodes of the same run.

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

    Examples
    --------
    ::

        activations:
          type: helix_sae.datasets.activations.ActivationsDataset
          filepath: data/04_feature/activations
          versioned: true
          verify: full
    """

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
        self._stream: ActivationStream | None = None
        self.metadata = metadata
        super().__init__(
            filepath=PurePosixPath(path),
            version=version,
            exists_function=self._has_manifest,
            glob_function=self._fs.glob,
        )

    def load(self) -> ActivationStore | ActivationStream:
        """Open the version for reading; nothing but its manifest and index is read yet."""
        if self._stream is not None:
            return self._stream
        folder = get_filepath_str(self._get_load_path(), self._protocol)
        return ActivationStore(self._fs, str(self._filepath), folder, verify=self._verify)

    def save(self, data: ExtractionPlan | ActivationStream) -> None:
        """Compute the shards of the plan that the store lacks, then write the version's index and manifest."""
        if isinstance(data, ActivationStream):
            self._stream = data
            return
        folder = get_filepath_str(self._get_save_path(), self._protocol)
        save_activations(data, self._url, self._storage_options, folder)
        self._invalidate_cache()

    def resolve_load_version(self) -> str | None:
        """Version to load: a stream belongs to the run that made it."""
        return super().resolve_load_version() if self._stream is None else self.resolve_save_version()

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
        self._stream = None
        self._invalidate_cache()

    def _invalidate_cache(self) -> None:
        self._fs.invalidate_cache(str(self._filepath))

    def preview(self) -> JSONPreview:
        """Return the manifest without its list of shards."""
        folder = get_filepath_str(self._get_load_path(), self._protocol)
        store = ActivationStore(self._fs, str(self._filepath), folder, verify="size")
        return JSONPreview(
            json.dumps({key: value for key, value in store.manifest.items() if key != "shards"})
        )
