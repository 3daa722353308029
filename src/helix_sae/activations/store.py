"""Activations that are stored: shards of a version, opened when their rows are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from helix_sae.activations.activations import Activations, Part, Ranges, TokenRows
from helix_sae.activations.plan import DESCRIBED
from helix_sae.activations.shards import FORMAT
from helix_sae.shards.files import Shard
from helix_sae.shards.store import ShardStore
from helix_sae.storage import Verify, open_filesystem


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


class StoredShards(ShardStore):
    """The shards of one version; a :class:`~helix_sae.activations.activations.Source`.

    Attributes
    ----------
    manifest : dict
        As written; ``storage_error`` states what the storage dtype costs.
    """

    is_stored = True

    def __init__(self, fs: Any, root: str, folder: str, verify: Verify = "full") -> None:
        super().__init__(fs, root, folder, FORMAT, verify)
        self.described: dict[str, Any] = {key: self.manifest[key] for key in DESCRIBED}
        self.widths: dict[str, int] = dict(self.manifest["widths"])

    def token_rows(self, start: int, stop: int) -> TokenRows:
        """What the rows of a range stand for."""
        parts = [
            [
                self.open(p.shard).rows(name, p.start, p.stop)
                for name in ("token", "nucleotide", "is_nucleotide")
            ]
            for p in self.pieces([(start, stop)])
        ]
        token, nucleotide, real = (np.concatenate(column) for column in zip(*parts, strict=True))
        return TokenRows(token, nucleotide, real.astype(bool))

    def read(self, sites: Sequence[str], ranges: Ranges) -> dict[str, Float[np.ndarray, "rows width"]]:
        """Rows of some ranges: a view of the file where they lie together in one shard, else a copy."""
        pieces = list(self.pieces(ranges))
        if len(pieces) == 1:
            shard = self.open(pieces[0].shard)
            return {site: _of_site(shard, site, pieces[0].start, pieces[0].stop) for site in sites}
        n_rows = sum(stop - start for start, stop in ranges)
        out = {site: np.empty((n_rows, self.widths[site]), dtype=np.float32) for site in sites}
        for piece in sorted(pieces):  # each shard is gone to once
            shard = self.open(piece.shard)
            target = slice(piece.target, piece.target + piece.stop - piece.start)
            for site in sites:
                out[site][target] = _of_site(shard, site, piece.start, piece.stop)
        return out

    def works(self) -> list[StoredPart]:
        """The work of each part."""
        last = np.cumsum(self.part_sizes)
        return [
            StoredPart(
                str(entry["key"]),
                tuple(self.sequence_ids[end - size : end]),
                tuple(self.n_tokens[end - size : end].tolist()),
                (self.fs, self.name, self.folder, self.verify),
                number,
            )
            for number, (entry, size, end) in enumerate(
                zip(self.entries, self.part_sizes.tolist(), last.tolist(), strict=True)
            )
        ]


@dataclass(frozen=True)
class StoredPart:
    """One shard to read: :class:`~helix_sae.activations.activations.PartWork`.

    Attributes
    ----------
    store : tuple
        What :class:`StoredShards` is opened with.
    number : int
        Of the shard.
    """

    key: str
    sequence_ids: tuple[str, ...]
    n_tokens: tuple[int, ...]
    store: tuple[Any, str, str, Verify]
    number: int

    def __call__(self, sites: Sequence[str]) -> Part:
        """Read the part."""
        store = _opened(*self.store)
        part = Activations(store).part(self.number, sites)
        store.release(self.number)  # it is read once, and a worker's copies of all would fill its disk
        return part


@lru_cache(maxsize=2)
def _opened(fs: Any, root: str, folder: str, verify: Verify) -> StoredShards:
    return StoredShards(fs, root, folder, verify)


def _of_site(shard: Shard, site: str, start: int, stop: int) -> Float[np.ndarray, "rows width"]:
    """Activations of a site as float32."""
    return shard.rows(f"site:{site}", start, stop).astype(np.float32, copy=False)
