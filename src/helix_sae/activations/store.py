"""Activations that are stored: shards of a version, opened when their rows are read."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from helix_sae.activations.activations import Activations, Ranges, TokenRows
from helix_sae.activations.plan import DESCRIBED
from helix_sae.activations.shards import FORMAT, Shard
from helix_sae.errors import StoreError
from helix_sae.storage import (
    Verify,
    canonical_json,
    inside,
    is_local,
    open_filesystem,
    read_file,
    sha256,
    storage_errors,
)
from helix_sae.temporary import elsewhere

_OPEN_SHARDS = 200
"""Each memory map holds a file descriptor, of which a process commonly has 1,024."""
_MAPPED_BYTES = 1 << 30
"""Mapped pages count as memory of the process as long as the map is open."""


def open_activations(
    url: str,
    folder: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    verify: Verify = "full",
) -> Activations:
    """Open a version of a store; nothing but its manifest and index is read yet.

    Parameters
    ----------
    url : str
        Root of the store, a local path or any fsspec URL.
    folder : str, optional
        Of the version, a path of the store's file system; the root itself when not given.
    storage_options : mapping, optional
        Of the fsspec file system.
    verify : {"full", "size"}
        What is checked of each shard when it is first read: its SHA-256, or its size alone.

    Raises
    ------
    StoreError
        If the manifest or the index is missing, damaged, or of another format.
    """
    fs, root = open_filesystem(url, storage_options)
    return Activations(StoredShards(fs, root, root if folder is None else folder, verify))


class StoredShards:
    """The shards of one version; a :class:`~helix_sae.activations.activations.Source`.

    Shards are memory-mapped (copied to this machine first, if they are elsewhere), and checked when they are first read.

    Attributes
    ----------
    manifest : dict
        As written; ``storage_error`` states what the storage dtype costs.
    """

    is_stored = True

    def __init__(self, fs: Any, root: str, folder: str, verify: Verify = "full") -> None:
        self._fs, self.name = fs, root.rstrip("/")
        self._verify: Verify = verify
        self.manifest = read_manifest(fs, folder)
        index = read_index(fs, folder, self.manifest)
        self.described: dict[str, Any] = {key: self.manifest[key] for key in DESCRIBED}
        self.widths: dict[str, int] = dict(self.manifest["widths"])
        self.sequence_ids: list[str] = index["sequence_id"].tolist()
        self.n_tokens = index["n_tokens"].to_numpy(dtype=np.int64)
        entries = cast("list[dict[str, Any]]", self.manifest["shards"])
        self.part_sizes: Int[np.ndarray, " n_parts"] = np.array([int(e["n_sequences"]) for e in entries])
        self._ends = np.cumsum([int(entry["n_tokens"]) for entry in entries])
        self._opened: OrderedDict[int, Shard] = OrderedDict()
        self._mapped = 0
        self._verified: set[int] = set()
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def token_rows(self, start: int, stop: int) -> TokenRows:
        """What the rows of a range stand for."""
        parts = [
            [
                self._open(p.shard).rows(name, p.start, p.stop)
                for name in ("token", "nucleotide", "is_nucleotide")
            ]
            for p in self._pieces([(start, stop)])
        ]
        token, nucleotide, real = (np.concatenate(column) for column in zip(*parts, strict=True))
        return TokenRows(token, nucleotide, real.astype(bool))

    def read(self, sites: Sequence[str], ranges: Ranges) -> dict[str, Float[np.ndarray, "rows width"]]:
        """Rows of some ranges: a view of the file where they lie together in one shard, else a copy."""
        pieces = list(self._pieces(ranges))
        if len(pieces) == 1:
            shard = self._open(pieces[0].shard)
            return {site: shard.activations(site, pieces[0].start, pieces[0].stop) for site in sites}
        n_rows = sum(stop - start for start, stop in ranges)
        out = {site: np.empty((n_rows, self.widths[site]), dtype=np.float32) for site in sites}
        for piece in sorted(pieces):  # each shard is gone to once
            shard = self._open(piece.shard)
            target = slice(piece.target, piece.target + piece.stop - piece.start)
            for site in sites:
                out[site][target] = shard.activations(site, piece.start, piece.stop)
        return out

    def _pieces(self, ranges: Ranges) -> Iterator[_Piece]:
        """Cut ranges of rows at the ends of the shards."""
        target = 0
        for start, stop in ranges:
            shard = int(np.searchsorted(self._ends, start, side="right"))
            while start < stop:
                first = int(self._ends[shard - 1]) if shard else 0
                end = min(stop, int(self._ends[shard]))
                yield _Piece(shard, start - first, end - first, target)
                target, start, shard = target + end - start, end, shard + 1

    def _open(self, number: int) -> Shard:
        """Open a shard, checked when it is opened for the first time."""
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        entry = self.manifest["shards"][number]
        path = f"{self.name}/{entry['file']}"
        verify: Verify = "size" if number in self._verified else self._verify
        shard = Shard(self._local_file(path), path, int(entry["bytes"]), str(entry["sha256"]), verify)
        self._verified.add(number)
        if shard.metadata["fingerprint"] != self.described["fingerprint"]:
            raise StoreError(
                f"{path}: the shard is of the model {shard.metadata['fingerprint']}, the manifest of "
                f"{self.described['fingerprint']}."
            )
        self._opened[number] = shard
        self._mapped += shard.n_bytes
        while len(self._opened) > 1 and (len(self._opened) > _OPEN_SHARDS or self._mapped > _MAPPED_BYTES):
            self._mapped -= self._opened.popitem(last=False)[1].n_bytes
        return shard

    def _local_file(self, path: str) -> str:
        """Path of a shard on this machine; a remote one is copied on first use, until the store is given up."""
        if is_local(self._fs):
            return path
        if self._copies is None:
            self._copies = elsewhere()
        copy = f"{self._copies.name}/{path.rsplit('/', 1)[-1]}"
        if not os.path.exists(copy):
            with storage_errors(path, "copied to this machine"):
                self._fs.get_file(path, f"{copy}.part")
                os.replace(f"{copy}.part", copy)
        return copy


class _Piece(NamedTuple):
    """Rows of one shard, and where they go."""

    shard: int
    start: int
    stop: int
    target: int


def read_manifest(fs: Any, folder: str) -> dict[str, Any]:
    """Read the manifest of a version.

    Raises
    ------
    StoreError
        If it is missing, damaged, or of another format.
    """
    path = f"{folder}/manifest.json"
    try:
        manifest = cast("dict[str, Any]", json.loads(read_file(fs, path)))
        found = manifest["format"]
        stated = manifest.get("sha256")
        if stated is not None and stated != manifest_sha256(manifest):
            raise ValueError("its content is not that of its SHA-256")
        for entry in [manifest["index"], *manifest["shards"]] if found == FORMAT else []:
            inside(folder, entry["file"], path)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the manifest is damaged ({error}); load another version.") from error
    if found != FORMAT:
        raise StoreError(
            f"{path}: a manifest of format {found!r}, not {FORMAT!r}; extract the activations again."
        )
    return manifest


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 that a manifest states of all else that it holds."""
    return sha256(canonical_json({key: value for key, value in manifest.items() if key != "sha256"}))


def read_index(fs: Any, folder: str, manifest: dict[str, Any]) -> pd.DataFrame:
    """Read where the rows of each sequence are: ``sequence_id``, ``shard``, ``start``, ``n_tokens``.

    Raises
    ------
    StoreError
        If it is missing, or not the one that the manifest names.
    """
    entry = manifest["index"]
    path = f"{folder}/{entry['file']}"
    data = read_file(fs, path)
    if sha256(data) != entry["sha256"]:
        raise StoreError(
            f"{path}: the index is damaged (its SHA-256 is not that of the manifest); load another version."
        )
    try:
        index = pd.read_parquet(io.BytesIO(data))
        shards = index["shard"].to_numpy()
        is_right = bool(
            (index["n_tokens"] >= 0).all() and (index["start"] >= 0).all() and (shards >= 0).all()
        )
        is_right = is_right and int(shards.max(initial=0)) < max(len(manifest["shards"]), 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the index cannot be read ({error}); load another version.") from error
    if not is_right:
        raise StoreError(f"{path}: the index names rows that no shard has; load another version.")
    return index
