"""What a shard of activations (:mod:`helix_sae.shards.files`) holds. Its key is a hash of (model, sites, dtype, sequences).

Tensors: ``site:<name>`` (rows, width) of the storage dtype; ``token``, ``nucleotide`` int32 (rows,), the
row's token in its sequence and that token's nucleotide; ``is_nucleotide`` uint8 (rows,); ``offsets`` int64
(sequences + 1,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int, Shaped

from helix_sae.errors import StoreError
from helix_sae.mrna.tokens import TokenizedSequence
from helix_sae.shards.files import ShardFile, parse_shard_path, write_tensors

StorageDtype = Literal["float32", "float16", "bfloat16"]
FORMAT = "helix-sae-activations/1"

_BLOCK = 1 << 17
"""Values that are summed up at a time."""


class StorageError(NamedTuple):
    """What storing a site at a lower precision costs.

    Attributes
    ----------
    max_abs : float
        Largest absolute error.
    error_sum_sq, sum_sq : float
        Sums of squares of the errors and of the values.
    """

    max_abs: float
    error_sum_sq: float
    sum_sq: float


class ShardEntry(NamedTuple):
    """A finished shard, as the manifest lists it."""

    key: str
    file: str
    sha256: str
    bytes: int
    n_sequences: int
    n_tokens: int
    rows_of_sequence: tuple[int, ...]
    widths: dict[str, int]
    errors: dict[str, StorageError]


def draw_tokens(sequence_id: str, n_tokens: int, tokens_per_sequence: int | None) -> Int[np.ndarray, " rows"]:
    """Tokens of a sequence that are kept: all, or a draw that depends on the sequence's id alone.

    Returns
    -------
    int32 (rows,)
        Ascending token indices; ``min(n_tokens, tokens_per_sequence)`` of them.
    """
    if tokens_per_sequence is None or n_tokens <= tokens_per_sequence:
        return np.arange(n_tokens, dtype=np.int32)
    seed = int.from_bytes(blake2b(sequence_id.encode(), digest_size=16).digest(), "little")
    drawn = np.random.default_rng(seed).choice(n_tokens, tokens_per_sequence, replace=False)
    return np.sort(drawn).astype(np.int32)


def write_shard(
    file: str,
    activations: Mapping[str, Float[np.ndarray, "tokens _"]],
    tokens: Sequence[TokenizedSequence],
    sequence_ids: Sequence[str],
    sites: Sequence[str],
    dtype: StorageDtype,
    tokens_per_sequence: int | None,
    described: Mapping[str, object],
) -> None:
    """Write the activations of some sequences, one after another, into a local file.

    Raises
    ------
    StoreError
        If a site is missing or has another number of rows, or a value is not finite or too large for
        ``dtype``.
    OSError
        If the file cannot be written.
    """
    sizes = np.array([t.ids.size for t in tokens], dtype=np.int64)
    start = np.cumsum(sizes) - sizes
    kept = [draw_tokens(i, int(n), tokens_per_sequence) for i, n in zip(sequence_ids, sizes, strict=True)]
    rows = np.concatenate([first + keep for first, keep in zip(start, kept, strict=True)])
    arrays: dict[str, tuple[str, np.ndarray]] = {
        "token": ("int32", np.concatenate(kept)),
        "nucleotide": ("int32", np.concatenate([t.nucleotide for t in tokens]).astype(np.int32)[rows]),
        "is_nucleotide": ("uint8", np.concatenate([t.is_nucleotide for t in tokens]).astype(np.uint8)[rows]),
        "offsets": ("int64", np.cumsum([0, *(k.size for k in kept)], dtype=np.int64)),
    }
    errors: dict[str, StorageError] = {}
    everything = rows.size == sizes.sum()
    for site in sites:
        values, sum_sq = _checked(activations, site, int(sizes.sum()))
        if not everything:
            values = values[rows]
            sum_sq = _sum_of_squares(values)
        stored, errors[site] = _store(values, sum_sq, site, dtype)
        arrays[f"site:{site}"] = (dtype, stored)
    metadata = {**described, "sequence_ids": list(sequence_ids), "errors": errors}
    write_tensors(file, arrays, metadata)


def _checked(
    activations: Mapping[str, np.ndarray], site: str, n_tokens: int
) -> tuple[Float[np.ndarray, "tokens _"], float]:
    """Activations of a site, finite and of the right shape, and the sum of their squares."""
    if site not in activations:
        raise StoreError(f"No activations were computed for site {site!r}, only for {sorted(activations)}.")
    values = np.ascontiguousarray(activations[site], dtype=np.float32)
    if values.ndim != 2 or len(values) != n_tokens:
        raise StoreError(f"Site {site!r}: activations of shape {values.shape} for {n_tokens} tokens.")
    sum_sq = _sum_of_squares(values)
    if not math.isfinite(sum_sq):
        raise StoreError(
            f"Site {site!r}: the model gave activations that are not finite; check its weights and dtype."
        )
    return values, sum_sq


def _sum_of_squares(values: Float[np.ndarray, "rows width"]) -> float:
    """In float64, not finite exactly if a value is not; by blocks, as they stay in a processor's cache."""
    flat = values.reshape(-1)
    blocks = (flat[i : i + _BLOCK].astype(np.float64) for i in range(0, flat.size, _BLOCK))
    return math.fsum(float(np.dot(block, block)) for block in blocks)


def _store(
    values: Float[np.ndarray, "rows width"], sum_sq: float, site: str, dtype: StorageDtype
) -> tuple[Shaped[np.ndarray, "rows width"], StorageError]:
    """Values at the storage precision (bfloat16 as its 16 bits), and what that costs."""
    if dtype == "float32":
        return values, StorageError(0.0, 0.0, sum_sq)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        back = stored.astype(np.float32)
    else:
        import torch  # noqa: PLC0415 - whoever looks after a store needs no torch

        rounded = torch.from_numpy(values).bfloat16()
        stored, back = rounded.view(torch.int16).numpy(), rounded.float().numpy()
    if not np.isfinite(back).all():
        raise StoreError(
            f"Site {site!r}: activations up to {np.abs(values).max():.3g} do not fit {dtype}; use bfloat16 or"
            " float32."
        )
    error = np.abs(values - back)
    return stored, StorageError(
        float(error.max(initial=0.0)), float(np.square(error, dtype=np.float64).sum()), sum_sq
    )


def entry_of_file(root: str, file: ShardFile, rows_of_sequence: Sequence[int]) -> ShardEntry:
    """Entry of a finished shard from its header alone.

    Parameters
    ----------
    root : str
        Of the store.
    file : ShardFile
    rows_of_sequence : sequence of int
        Tokens kept of each of its sequences.
    """
    key, digest = cast("tuple[str, str]", parse_shard_path(file.path))
    sites = {
        tensor.removeprefix("site:"): entry
        for tensor, entry in file.header.items()
        if tensor.startswith("site:")
    }
    return ShardEntry(
        key=key,
        file=file.path.removeprefix(root).lstrip("/"),
        sha256=digest,
        bytes=file.n_bytes,
        n_sequences=len(rows_of_sequence),
        n_tokens=sum(rows_of_sequence),
        rows_of_sequence=tuple(rows_of_sequence),
        widths={site: entry["shape"][1] for site, entry in sites.items()},
        errors={site: StorageError(*values) for site, values in file.metadata["errors"].items()},
    )
