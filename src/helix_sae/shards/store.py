"""The shards of one version, opened when their rows are read."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Int

from helix_sae.errors import StoreError
from helix_sae.shards.files import Shard
from helix_sae.shards.manifest import read_index, read_manifest
from helix_sae.storage import Verify, is_local, storage_errors
from helix_sae.temporary import elsewhere

_OPEN_SHARDS = 200
"""Each memory map holds a file descriptor, of which a process commonly has 1,024."""
_MAPPED_BYTES = 1 << 30
"""Mapped pages count as memory of the process as long as the map is open."""


class Piece(NamedTuple):
    """Rows of one shard, and where they go."""

    shard: int
    start: int
    stop: int
    target: int


class ShardStore:
    """The shards of one version: memory-mapped (copied to this machine first, if they are elsewhere), checked at first.

    Parameters
    ----------
    fs
        File system of the store.
    root, folder : str
        Of the store, and of the version in it.
    format_name : str
        That its manifest has to state.
    verify : {"full", "size"}
        What is checked of each shard when it is first read: its SHA-256, or its size alone.

    Attributes
    ----------
    name : str
        Named in messages.
    manifest : dict
        As written.
    sequence_ids : list of str
    n_tokens : int64 (n_sequences,)
    part_sizes : int64 (n_shards,)
        Sequences of each shard.

    Raises
    ------
    StoreError
        If the manifest or the index is missing, damaged, or of another format.
    """

    def __init__(self, fs: Any, root: str, folder: str, format_name: str, verify: Verify = "full") -> None:
        self.fs, self.name, self.folder = fs, root.rstrip("/"), folder
        self.verify: Verify = verify
        self.manifest = read_manifest(fs, folder, (format_name,))
        index = read_index(fs, folder, self.manifest)
        self.sequence_ids: list[str] = index["sequence_id"].tolist()
        self.n_tokens = index["n_tokens"].to_numpy(dtype=np.int64)
        self.entries = cast("list[dict[str, Any]]", self.manifest["shards"])
        self.part_sizes: Int[np.ndarray, " n_parts"] = np.array([int(e["n_sequences"]) for e in self.entries])
        self._ends = np.cumsum([int(entry["n_tokens"]) for entry in self.entries])
        self._opened: OrderedDict[int, Shard] = OrderedDict()
        self._mapped = 0
        self._verified: set[int] = set()
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def bounds(self, number: int) -> tuple[int, int]:
        """Rows of the whole that a shard has."""
        return int(self._ends[number - 1]) if number else 0, int(self._ends[number])

    def shards_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Number of the shard that holds each of some rows of the whole."""
        return np.searchsorted(self._ends, rows, side="right")

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Piece]:
        """Cut ranges of rows of the whole at the ends of the shards."""
        target = 0
        for start, stop in ranges:
            shard = int(np.searchsorted(self._ends, start, side="right"))
            while start < stop:
                first, last = self.bounds(shard)
                end = min(stop, last)
                yield Piece(shard, start - first, end - first, target)
                target, start, shard = target + end - start, end, shard + 1

    def open(self, number: int) -> Shard:
        """Open a shard, checked when it is opened for the first time."""
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        entry: Mapping[str, Any] = self.entries[number]
        path = f"{self.name}/{entry['file']}"
        verify: Verify = "size" if number in self._verified else self.verify
        shard = Shard(self._local_file(path), path, int(entry["bytes"]), str(entry["sha256"]), verify)
        self._verified.add(number)
        if shard.metadata["fingerprint"] != self.manifest["fingerprint"]:
            raise StoreError(
                f"{path}: the shard is of the model {shard.metadata['fingerprint']}, the manifest of "
                f"{self.manifest['fingerprint']}."
            )
        self._opened[number] = shard
        self._mapped += shard.n_bytes
        while len(self._opened) > 1 and (len(self._opened) > _OPEN_SHARDS or self._mapped > _MAPPED_BYTES):
            self._mapped -= self._opened.popitem(last=False)[1].n_bytes
        return shard

    def _local_file(self, path: str) -> str:
        """Path of a shard on this machine; a remote one is copied on first use, until the store is given up."""
        if is_local(self.fs):
            return path
        if self._copies is None:
            self._copies = elsewhere()
        copy = _copy_in(self._copies.name, path)
        if not os.path.exists(copy):
            with storage_errors(path, "copied to this machine"):
                self.fs.get_file(path, f"{copy}.part")
                os.replace(f"{copy}.part", copy)
        return copy

    def release(self, number: int) -> None:
        """Give up a shard that is not needed again, with its copy on this machine; rows read from it stay."""
        shard = self._opened.pop(number, None)
        if shard is not None:
            self._mapped -= shard.n_bytes
        if self._copies is not None:
            with suppress(FileNotFoundError):
                os.remove(_copy_in(self._copies.name, f"{self.name}/{self.entries[number]['file']}"))


def _copy_in(folder: str, path: str) -> str:
    return f"{folder}/{path.rsplit('/', 1)[-1]}"
