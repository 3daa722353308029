"""Reading stored activations: by sequence, in order, or as a shuffled stream; always lazily."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from helix_sae.activations.shards import FORMAT, Shard
from helix_sae.errors import ConfigurationError, DataError, StoreError, UnknownSiteError
from helix_sae.storage import Verify, is_local, read_file, sha256, storage_errors

DEFAULT_BUFFER_ROWS = 65_536
_BLOCKS_PER_BUFFER = 64
_OPEN_SHARDS = 200
"""Each memory map holds a file descriptor, of which a process commonly has 1,024."""
_MAPPED_BYTES = 1 << 30
"""Mapped pages count as memory of the process as long as the map is open."""


class TokenRows(NamedTuple):
    """What the rows of some activations stand for.

    Attributes
    ----------
    token : int32 (n,)
        The row's token within its sequence.
    nucleotide : int32 (n,)
        That token's nucleotide; for a codon marker the one that follows it.
    is_nucleotide : bool (n,)
        False at codon markers.
    """

    token: Int[np.ndarray, " n"]
    nucleotide: Int[np.ndarray, " n"]
    is_nucleotide: Bool[np.ndarray, " n"]


class ShardRows(NamedTuple):
    """Consecutive sequences of the store.

    Attributes
    ----------
    sequence_ids : list of str
    offsets : int64 (n_sequences + 1,)
        Rows of sequence ``i`` are ``offsets[i]:offsets[i + 1]``.
    rows : TokenRows
    activations : dict of site -> float32 (n_tokens, width)
    """

    sequence_ids: list[str]
    offsets: Int[np.ndarray, " n_1"]
    rows: TokenRows
    activations: dict[str, Float[np.ndarray, "n_tokens width"]]


class ActivationStore:
    """One version of the activations of a model.

    Rows are tokens, those of one sequence after another in the order of the table that was extracted. Shards are
    memory-mapped (copied to this machine first, if they are elsewhere), and checked when they are first read.

    Attributes
    ----------
    manifest : dict
        As written; ``storage_error`` states what the storage dtype costs.
    fingerprint : str
        Of the model.
    sites : tuple of str
    widths : dict of site -> int
    sequence_ids : list of str
    offsets : int64 (n_sequences + 1,)
        Rows of sequence ``i`` are ``offsets[i]:offsets[i + 1]`` of the store.
    n_tokens : int

    Raises
    ------
    StoreError
        If the manifest or the index is missing, damaged, or of another format.
    """

    def __init__(self, fs: Any, root: str, folder: str, verify: Verify = "full") -> None:
        self._fs, self._root = fs, root.rstrip("/")
        self._verify: Verify = verify
        self.manifest = read_manifest(fs, folder)
        index = read_index(fs, folder, self.manifest)
        self.fingerprint = str(self.manifest["fingerprint"])
        self.sites: tuple[str, ...] = tuple(self.manifest["sites"])
        self.widths: dict[str, int] = dict(self.manifest["widths"])
        self.sequence_ids: list[str] = index["sequence_id"].tolist()
        self._number = {name: i for i, name in enumerate(self.sequence_ids)}
        self._shard = index["shard"].to_numpy(dtype=np.int64)
        self._start = index["start"].to_numpy(dtype=np.int64)
        self._n_tokens = index["n_tokens"].to_numpy(dtype=np.int64)
        self.offsets: Int[np.ndarray, " n_1"] = np.concatenate([[0], np.cumsum(self._n_tokens)])
        self._opened: OrderedDict[int, Shard] = OrderedDict()
        self._mapped = 0
        self._verified: set[int] = set()
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    @property
    def n_tokens(self) -> int:
        """Stored tokens of all sequences."""
        return int(self.offsets[-1])

    def __len__(self) -> int:
        return len(self.sequence_ids)

    def __contains__(self, sequence_id: object) -> bool:
        return sequence_id in self._number

    def __repr__(self) -> str:
        return f"ActivationStore({len(self)} sequences, {self.n_tokens} tokens, sites={self.sites})"

    def check_model(self, fingerprint: str) -> None:
        """Raise :class:`StoreError` unless the activations are of the model with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise StoreError(
                f"{self._root}: these activations are of the model {self.fingerprint}, not of {fingerprint}. Run the "
                "extraction with this model, or load the version that belongs to it (--load-versions)."
            )

    def get(self, sequence_id: str, site: str) -> Float[np.ndarray, "n_tokens width"]:
        """Activations of one sequence at a site, a row a token; read-only."""
        self._check_sites([site])
        number = self._numbers([sequence_id])[0]
        return self._open(int(self._shard[number])).activations(site, *self._bounds(number))

    def rows(self, sequence_id: str) -> TokenRows:
        """What the rows of one sequence stand for."""
        number = self._numbers([sequence_id])[0]
        return _token_rows(self._open(int(self._shard[number])), *self._bounds(number))

    def all_rows(self) -> TokenRows:
        """What every row of the store stands for."""
        parts = [_token_rows(self._open(i)) for i in range(len(self.manifest["shards"]))]
        return TokenRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def iter_shards(self, sites: Sequence[str] | str) -> Iterator[ShardRows]:
        """Go through the store in order, some sequences at a time: no row is copied on the local disk in float32."""
        names = [sites] if isinstance(sites, str) else list(sites)
        self._check_sites(names)
        first = 0
        for number, entry in enumerate(self.manifest["shards"]):
            shard = self._open(number)
            last = first + int(entry["n_sequences"])
            yield ShardRows(
                self.sequence_ids[first:last],
                shard.offsets,
                _token_rows(shard),
                {site: shard.activations(site) for site in names},
            )
            first = last

    def batches(
        self,
        sites: Sequence[str],
        batch_size: int,
        seed: int,
        epochs: int = 1,
        sequence_ids: Sequence[str] | None = None,
        buffer_rows: int = DEFAULT_BUFFER_ROWS,
    ) -> TokenBatches:
        """Shuffled tokens for training, the same ones for all sites.

        The rows are cut into blocks, the blocks are put in a random order, and rows are drawn at random from a buffer
        of many blocks. The stream depends on the seed, the sequences and ``buffer_rows``, not on how they are stored.

        Parameters
        ----------
        sites : sequence of str
        batch_size : int
            Rows of a batch. The last one of an epoch may have fewer: each row comes once an epoch.
        seed : int
        epochs : int
            How often all rows are gone through, in another order each time.
        sequence_ids : sequence of str, optional
            Only these (e.g. of one split).
        buffer_rows : int
            Bounds the memory: ``buffer_rows x width x 4`` bytes a site. If all rows fit, the shuffle is complete.

        Returns
        -------
        TokenBatches
            Iterable as often as you like (the same batches each time), of known length; each batch is a dict of
            site -> new float32 array (batch, width).
        """
        self._check_sites(sites)
        if min(batch_size, epochs, buffer_rows) < 1:
            raise ConfigurationError(
                f"batch_size {batch_size}, epochs {epochs} and buffer_rows {buffer_rows} must each be at least 1."
            )
        return TokenBatches(
            self, tuple(sites), batch_size, seed, epochs, self._segments(sequence_ids), buffer_rows
        )

    def n_tokens_of(self, sequence_ids: Sequence[str] | None = None) -> int:
        """Stored tokens of some sequences."""
        return (
            self.n_tokens if sequence_ids is None else int(self._n_tokens[self._numbers(sequence_ids)].sum())
        )

    def read_ranges(
        self, sites: Sequence[str], segments: Segments, ranges: Sequence[tuple[int, int]]
    ) -> dict[str, Float[np.ndarray, "rows width"]]:
        """Copy ranges of rows, counted among those of the segments only; each shard is gone to once."""
        pieces = sorted(_pieces(segments, ranges))
        n_rows = sum(stop - start for start, stop in ranges)
        out = {site: np.empty((n_rows, self.widths[site]), dtype=np.float32) for site in sites}
        for piece in pieces:
            shard = self._open(piece.shard)
            for site in sites:
                rows = shard.activations(site, piece.start, piece.start + piece.n_rows)
                out[site][piece.target : piece.target + piece.n_rows] = rows
        return out

    def _segments(self, sequence_ids: Sequence[str] | None) -> Segments:
        """Runs of consecutive rows within a shard that hold the chosen sequences, in the order of the store."""
        chosen = np.arange(len(self)) if sequence_ids is None else np.sort(self._numbers(sequence_ids))
        if chosen.size == 0:
            raise DataError("No sequence was chosen to read activations of.")
        if (np.diff(chosen) == 0).any():
            raise DataError(
                f"Sequence {self.sequence_ids[chosen[:-1][np.diff(chosen) == 0][0]]!r} was chosen twice."
            )
        breaks = np.r_[True, (np.diff(chosen) > 1) | (np.diff(self._shard[chosen]) != 0)]
        first = np.flatnonzero(breaks)
        size = np.add.reduceat(self._n_tokens[chosen], first)
        return Segments(self._shard[chosen[first]], self._start[chosen[first]], np.cumsum(size))

    def _numbers(self, sequence_ids: Sequence[str]) -> Int[np.ndarray, " n"]:
        absent = [name for name in sequence_ids if name not in self._number]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(sequence_ids)} sequences have no stored activations; the first: {absent[:5]}. "
                "Run the extraction for the present mrna_table."
            )
        return np.fromiter(
            (self._number[name] for name in sequence_ids), dtype=np.int64, count=len(sequence_ids)
        )

    def _bounds(self, number: int) -> tuple[int, int]:
        start = int(self._start[number])
        return start, start + int(self._n_tokens[number])

    def _check_sites(self, sites: Sequence[str]) -> None:
        unknown = [site for site in sites if site not in self.sites]
        if unknown or not sites:
            raise UnknownSiteError(
                f"No activations are stored for site(s) {unknown}; there are {list(self.sites)}."
            )

    def _open(self, number: int) -> Shard:
        """Open a shard, checked when it is opened for the first time."""
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        entry = self.manifest["shards"][number]
        path = f"{self._root}/{entry['file']}"
        verify: Verify = "size" if number in self._verified else self._verify
        shard = Shard(self._local_file(path), path, int(entry["bytes"]), str(entry["sha256"]), verify)
        self._verified.add(number)
        if shard.metadata["fingerprint"] != self.fingerprint:
            raise StoreError(
                f"{path}: the shard is of the model {shard.metadata['fingerprint']}, the manifest of {self.fingerprint}."
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
            self._copies = tempfile.TemporaryDirectory(prefix="helix-sae-")
        copy = f"{self._copies.name}/{path.rsplit('/', 1)[-1]}"
        if not os.path.exists(copy):
            with storage_errors(path, "copied to this machine"):
                self._fs.get_file(path, f"{copy}.part")
                os.replace(f"{copy}.part", copy)
        return copy


class Segments(NamedTuple):
    """Runs of rows: shard and first row of each, and the number of rows up to its end."""

    shard: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]
    ends: Int[np.ndarray, " n"]


class _Piece(NamedTuple):
    """Rows of one shard, and where they go."""

    shard: int
    start: int
    n_rows: int
    target: int


def _pieces(segments: Segments, ranges: Sequence[tuple[int, int]]) -> Iterator[_Piece]:
    """Cut ranges of rows at the ends of the segments."""
    target = 0
    for start, stop in ranges:
        number = int(np.searchsorted(segments.ends, start, side="right"))
        while start < stop:
            begin = int(segments.ends[number - 1]) if number else 0
            n_rows = min(stop, int(segments.ends[number])) - start
            yield _Piece(
                int(segments.shard[number]), int(segments.start[number]) + start - begin, n_rows, target
            )
            target, start, number = target + n_rows, start + n_rows, number + 1


@dataclass(frozen=True)
class TokenBatches:
    """Shuffled batches of stored tokens; made by :meth:`ActivationStore.batches`."""

    store: ActivationStore
    sites: tuple[str, ...]
    batch_size: int
    seed: int
    epochs: int
    segments: Segments
    buffer_rows: int

    @property
    def n_tokens(self) -> int:
        """Rows of one epoch."""
        return int(self.segments.ends[-1])

    def __len__(self) -> int:
        return self.epochs * -(-self.n_tokens // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Float[np.ndarray, "batch width"]]]:
        for epoch in range(self.epochs):
            yield from self._epoch(np.random.default_rng([self.seed, epoch]))

    def _epoch(self, rng: np.random.Generator) -> Iterator[dict[str, np.ndarray]]:
        block = max(1, self.buffer_rows // _BLOCKS_PER_BUFFER)
        blocks = rng.permutation(-(-self.n_tokens // block))
        groups = [
            blocks[i : i + _BLOCKS_PER_BUFFER] * block for i in range(0, len(blocks), _BLOCKS_PER_BUFFER)
        ]
        return shuffled_batches(
            (self._chunk(starts.tolist(), block) for starts in groups), self.batch_size, rng
        )

    def _chunk(self, starts: Sequence[int], block: int) -> dict[str, np.ndarray]:
        ranges = [(start, min(start + block, self.n_tokens)) for start in starts]
        return self.store.read_ranges(self.sites, self.segments, ranges)


def shuffled_batches(
    chunks: Iterable[Mapping[str, Float[np.ndarray, "rows _"]]], batch_size: int, rng: np.random.Generator
) -> Iterator[dict[str, Float[np.ndarray, "batch _"]]]:
    """Shuffle the rows of each chunk, the same way for all sites, and cut them into batches.

    Rows that do not fill a batch wait for the next chunk; what is left at the end is a smaller batch.
    """
    kept: dict[str, np.ndarray] = {}
    for chunk in chunks:
        order = rng.permutation(len(next(iter(chunk.values()))))
        buffer = {
            s: np.concatenate([kept[s], rows[order]]) if kept else rows[order] for s, rows in chunk.items()
        }
        n_rows = len(next(iter(buffer.values())))
        whole = n_rows // batch_size * batch_size
        for start in range(0, whole, batch_size):
            yield {site: rows[start : start + batch_size].copy() for site, rows in buffer.items()}
        kept = {site: rows[whole:] for site, rows in buffer.items()} if whole < n_rows else {}
    if kept:
        yield kept


def _token_rows(shard: Shard, start: int = 0, stop: int | None = None) -> TokenRows:
    token, nucleotide, real = (shard.rows(n, start, stop) for n in ("token", "nucleotide", "is_nucleotide"))
    return TokenRows(token, nucleotide, real.astype(bool))


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
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the manifest is damaged ({error}); load another version.") from error
    if found != FORMAT:
        raise StoreError(
            f"{path}: a manifest of format {found!r}, not {FORMAT!r}; extract the activations again."
        )
    return manifest


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
    return pd.read_parquet(io.BytesIO(data))
