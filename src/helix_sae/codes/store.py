"""Codes that are stored: shards of a version, opened when their rows, columns or pools are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Int

from helix_sae.codes.shards import FORMAT, read_codes, read_pooled
from helix_sae.errors import DataError
from helix_sae.sae.codes import PooledCodes, TokenCodes, join_pooled
from helix_sae.shards.store import ShardStore
from helix_sae.storage import Verify, open_filesystem


def open_codes(
    url: str,
    folder: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    verify: Verify = "full",
) -> StoredCodes:
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
    return StoredCodes(ShardStore(fs, root, root if folder is None else folder, FORMAT, verify))


class StoredCodes(Mapping[str, "StoredSiteCodes"]):
    """Codes of a corpus by site; those of the sites have the same rows.

    Attributes
    ----------
    store : ShardStore
    """

    def __init__(self, store: ShardStore) -> None:
        self.store = store
        self._sites = {site: StoredSiteCodes(store, site) for site in store.manifest["sites"]}

    def __getitem__(self, site: str) -> StoredSiteCodes:
        return self._sites[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __repr__(self) -> str:
        manifest = self.store.manifest
        size = f"{manifest['n_sequences']} sequences, {manifest['n_tokens']} tokens"
        return f"StoredCodes({size}, sites={list(self)})"


class StoredSiteCodes:
    """Codes at one site, with the face of :class:`~helix_sae.sae.codes.TokenCodes`; a shard is in memory at a time.

    Attributes
    ----------
    sequence_id : str object array (n_sequences,)
    offsets : int64 (n_sequences + 1,)
        Sequence ``i`` owns the rows ``offsets[i]:offsets[i + 1]``.
    shape : (n_tokens, d_sae)
    """

    def __init__(self, store: ShardStore, site: str) -> None:
        self._store, self._site = store, site
        self.sequence_id = np.array(store.sequence_ids, dtype=object)
        self.offsets: Int[np.ndarray, " n_1"] = np.concatenate([[0], np.cumsum(store.n_tokens)])
        self.shape = (int(self.offsets[-1]), int(store.manifest["d_sae"][site]))

    def parts(self) -> Iterator[TokenCodes]:
        """Go through all sequences in order, some at a time."""
        return (read_codes(self._store.open(i), self._site) for i in range(len(self._store.entries)))

    @property
    def codes(self) -> scipy.sparse.csr_array:
        """Codes of all tokens; they have to fit into memory."""
        return scipy.sparse.csr_array(
            scipy.sparse.vstack([part.codes for part in self.parts()], format="csr")
        )

    @cached_property
    def is_nucleotide(self) -> Bool[np.ndarray, " n_tokens"]:
        """False at codon markers; a byte a token."""
        stored = (self._store.open(i).rows("is_nucleotide") for i in range(len(self._store.entries)))
        return np.concatenate([flags.astype(bool) for flags in stored])

    def at(self, rows: Int[np.ndarray, " n"]) -> scipy.sparse.csr_array:
        """Codes of some tokens, in any order; each shard that holds one is read once.

        Raises
        ------
        DataError
            If there is no such row.
        """
        if rows.size and (rows.min() < 0 or rows.max() >= self.shape[0]):
            raise DataError(f"Rows {rows.min()} to {rows.max()} were asked for; there are {self.shape[0]}.")
        shards = self._store.shards_of(rows)
        order = np.argsort(shards, kind="stable")
        found = [scipy.sparse.csr_array((0, self.shape[1]), dtype=np.float32)]
        for number in np.unique(shards).tolist():
            first, _ = self._store.bounds(number)
            wanted = rows[order[slice(*np.searchsorted(shards[order], [number, number + 1]))]]
            found.append(read_codes(self._store.open(number), self._site).codes[wanted - first])
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        return scipy.sparse.csr_array(scipy.sparse.vstack(found, format="csr")[place])

    def columns(self, features: Sequence[int]) -> scipy.sparse.csc_array:
        """Codes of some features on every token (n_tokens, n_features), in one pass over the shards."""
        chosen = np.asarray(features, dtype=np.int64)
        # By columns from the start: rows of few entries would need a pointer each.
        parts = [scipy.sparse.csc_array(part.codes[:, chosen]) for part in self.parts()]
        return scipy.sparse.csc_array(scipy.sparse.vstack(parts, format="csc"))

    def pooled(self) -> PooledCodes:
        """Mean and maximum over each sequence, and what the features' statistics are made of."""
        return join_pooled(
            read_pooled(self._store.open(i), self._site) for i in range(len(self._store.entries))
        )
