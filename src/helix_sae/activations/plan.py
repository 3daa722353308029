"""What an extraction has to compute: a light, picklable description that a pure node can return."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from helix_sae.activations.shards import FORMAT, StorageDtype
from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna.tokens import CodonMarkers, TokenizedSequence, tokenize

Compute = Callable[[Sequence[TokenizedSequence]], Mapping[str, Float[np.ndarray, "tokens _"]]]
"""Activations of each site for some sequences: the rows of one sequence after those of the one before."""

DEFAULT_SHARD_TOKENS = 32_768

LARGEST_STORE = 16 * 10**9
"""Bytes of a store that is chosen by itself; of more tokens than fill it a sample is taken."""

_INDEX_BYTES = 9
"""Of each row beside its values: token and nucleotide as int32, and a flag."""
DESCRIBED = ("fingerprint", "sites", "dtype", "precision", "codon_markers", "tokens_per_sequence")
"""What makes stored activations comparable; with the format, what manifest and shards state."""


@dataclass(frozen=True)
class ShardSpec:
    """The sequences of one shard.

    Attributes
    ----------
    key : str
        SHA-256 of everything that the shard's content depends on.
    sequence_ids, sequences : tuple of str
    coding_regions : tuple of (start, end)
        0-based half-open, None where unknown.
    n_tokens : int
        Tokens that the model computes for them.
    codon_markers : {"cds", "none"}
    """

    key: str
    sequence_ids: tuple[str, ...]
    sequences: tuple[str, ...]
    coding_regions: tuple[tuple[int | None, int | None], ...]
    n_tokens: int
    codon_markers: CodonMarkers

    def size(self, member: int) -> int:
        """Tokens that the model computes for the sequence at a place in the shard."""
        return count_tokens(len(self.sequences[member]), *self.coding_regions[member], self.codon_markers)

    def kept(self, tokens_per_sequence: int | None) -> list[int]:
        """Tokens that are kept of each sequence."""
        sizes = map(self.size, range(len(self.sequences)))
        return [size if tokens_per_sequence is None else min(size, tokens_per_sequence) for size in sizes]

    def tokens(self, members: Sequence[int] | None = None) -> list[TokenizedSequence]:
        """Tokenize the sequences, or the ones at some places in the shard."""
        return [
            tokenize(self.sequences[i], *self.coding_regions[i], self.codon_markers)
            for i in (range(len(self.sequences)) if members is None else members)
        ]


@dataclass(frozen=True)
class ExtractionPlan:
    """Everything that saving activations needs; nothing of it is computed yet.

    Attributes
    ----------
    fingerprint : str
        Of the model; activations of different models are never mixed.
    sites : tuple of str
    dtype : {"float32", "float16", "bfloat16"}
        How activations are stored.
    precision : {"float32", "float64", "bfloat16"}
        In which the model computes them.
    tokens_per_sequence : int, optional
        Tokens kept of each sequence, drawn by the hash of its id.
    shards : tuple of ShardSpec
        In the order of the table.
    compute : callable
        From tokenized sequences to the activations of each site.
    width : int, optional
        Of every site, where it is known before the model runs.
    """

    fingerprint: str
    sites: tuple[str, ...]
    dtype: StorageDtype
    precision: str
    codon_markers: CodonMarkers
    tokens_per_sequence: int | None
    shards: tuple[ShardSpec, ...]
    compute: Compute
    width: int | None = None

    def stored_bytes(self, shards: Sequence[ShardSpec]) -> int | None:
        """Bytes that some shards take in a store, but for their headers; None where the width is not known."""
        if self.width is None:
            return None
        n_tokens = sum(sum(spec.kept(self.tokens_per_sequence)) for spec in shards)
        return n_tokens * bytes_a_token(len(self.sites), self.width, self.dtype)

    def described(self) -> dict[str, object]:
        """What makes stored activations comparable, as the manifest and each shard state it."""
        stated = {name: getattr(self, name) for name in DESCRIBED}
        return {"format": FORMAT, **stated, "sites": list(self.sites)}


def plan_extraction(
    table: pd.DataFrame,
    *,
    fingerprint: str,
    sites: Sequence[str],
    compute: Compute,
    codon_markers: CodonMarkers = "cds",
    dtype: StorageDtype = "float32",
    precision: str = "float32",
    shard_tokens: int = DEFAULT_SHARD_TOKENS,
    tokens_per_sequence: int | None = None,
    width: int | None = None,
) -> ExtractionPlan:
    """Divide the sequences of an mRNA table into shards.

    Parameters
    ----------
    table : DataFrame
        Columns ``sequence_id``, ``sequence``, ``cds_start``, ``cds_end``.
    fingerprint : str
        The model's.
    sites : sequence of str
    compute : callable
        Picklable, if a cluster is to do the work.
    dtype : {"float32", "float16", "bfloat16"}
        Storage precision; the manifest states its error.
    precision : {"float32", "float64", "bfloat16"}
        In which ``compute`` runs the model: its shards are not mixed with those of another precision.
    shard_tokens : int
        Largest shard, in tokens; a longer sequence is a shard by itself. Memory of one piece of work is about
        ``shard_tokens x sites x width x 4`` bytes.
    tokens_per_sequence : int, optional
        Keep at most this many tokens of each sequence.
    width : int, optional
        Of every site, so that the size of the store is known before the first shard is computed.

    Raises
    ------
    ConfigurationError
        If a parameter is out of range.
    DataError
        If the table is empty or repeats an id.
    """
    if dtype not in get_args(StorageDtype):
        raise ConfigurationError(f"dtype: {dtype!r} is not one of {', '.join(get_args(StorageDtype))}.")
    if shard_tokens < 1 or (tokens_per_sequence is not None and tokens_per_sequence < 1):
        raise ConfigurationError("shard_tokens and tokens_per_sequence must be at least 1.")
    if not sites or len(set(sites)) != len(sites):
        raise ConfigurationError(f"sites: {list(sites)} must name at least one site, each once.")
    if table.empty:
        raise DataError("There is no sequence to extract activations of: the mRNA table is empty.")
    if table["sequence_id"].duplicated().any():
        repeated = table.loc[table["sequence_id"].duplicated(), "sequence_id"].tolist()[0]
        raise DataError(f"sequence_id {repeated!r} is in the mRNA table more than once.")
    plan = ExtractionPlan(
        fingerprint, tuple(sites), dtype, precision, codon_markers, tokens_per_sequence, (), compute, width
    )
    return replace(plan, shards=tuple(_shards(table, shard_tokens, plan.described())))


def count_tokens(length: int, start: int | None, end: int | None, codon_markers: CodonMarkers) -> int:
    """Tokens of a sequence: its nucleotides and one marker a codon."""
    if codon_markers == "none" or start is None:
        return length
    return length + -(-max((length if end is None else end) - start, 0) // 3)


def token_counts(table: pd.DataFrame, codon_markers: CodonMarkers) -> Int[np.ndarray, " n_sequences"]:
    """Tokens of each sequence of an mRNA table."""
    columns = zip(table["sequence"], table["cds_start"], table["cds_end"], strict=True)
    bounds = (
        (len(sequence), *(None if pd.isna(bound) else int(bound) for bound in (start, end)))
        for sequence, start, end in columns
    )
    return np.array([count_tokens(n, a, b, codon_markers) for n, a, b in bounds], dtype=np.int64)


def bytes_a_token(n_sites: int, width: int, dtype: StorageDtype) -> int:
    """Bytes that a token takes in a store: ``sites x width`` values, and what says which token it is."""
    return n_sites * width * (4 if dtype == "float32" else 2) + _INDEX_BYTES


def fitting_sample(
    counts: Int[np.ndarray, " n_sequences"], token_bytes: int, largest: int = LARGEST_STORE
) -> int | None:
    """Tokens to keep of each sequence for a store of at most so many bytes; at least 1. None where all of them fit.

    Parameters
    ----------
    counts : int (n_sequences,)
        Tokens of each sequence.
    token_bytes : int
        Of each stored token (:func:`bytes_a_token`).
    largest : int
        Bytes.
    """
    room = largest // token_bytes
    if int(counts.sum()) <= room:
        return None
    low, high = 1, int(counts.max())
    while low < high:  # the largest number that fits lies in low..high
        middle = (low + high + 1) // 2
        fits = int(np.minimum(counts, middle).sum()) <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _shards(table: pd.DataFrame, shard_tokens: int, described: Mapping[str, object]) -> Iterator[ShardSpec]:
    """Fill shards with the sequences in their order."""
    markers: CodonMarkers = described["codon_markers"]  # type: ignore[assignment]
    columns = [table[name].tolist() for name in ("sequence_id", "sequence", "cds_start", "cds_end")]
    members: list[tuple[str, str, int | None, int | None]] = []
    total = 0
    for sequence_id, sequence, *bounds in zip(*columns, strict=True):
        start, end = (None if pd.isna(bound) else int(bound) for bound in bounds)
        n_tokens = count_tokens(len(sequence), start, end, markers)
        if members and total + n_tokens > shard_tokens:
            yield _spec(members, total, markers, described)
            members, total = [], 0
        members.append((sequence_id, sequence, start, end))
        total += n_tokens
    yield _spec(members, total, markers, described)


def _spec(
    members: Sequence[tuple[str, str, int | None, int | None]],
    n_tokens: int,
    codon_markers: CodonMarkers,
    described: Mapping[str, object],
) -> ShardSpec:
    # The order of the sites changes no value: the same shard serves either order.
    content = {**described, "sites": sorted(described["sites"]), "sequences": list(members)}  # type: ignore[arg-type]
    key = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    ids, sequences, starts, ends = zip(*members, strict=True)
    return ShardSpec(key, ids, sequences, tuple(zip(starts, ends, strict=True)), n_tokens, codon_markers)
