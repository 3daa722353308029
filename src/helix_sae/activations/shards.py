"""One shard of activations: a safetensors file, named by what it is made from and by what it holds.

``shards/<first two letters>/<key>.<sha256>.safetensors``. The key is a hash of (model, sites, dtype,
sequences); the second name is the file's own SHA-256. A single rename makes a shard complete, with its
checksum, and no two processes can disturb each other: equal content has an equal name.

Tensors: ``site:<name>`` (rows, width) of the storage dtype; ``token``, ``nucleotide`` int32 (rows,), the
row's token in its sequence and that token's nucleotide; ``is_nucleotide`` uint8 (rows,); ``offsets`` int64
(sequences + 1,).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int, Shaped
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file

from helix_sae.errors import StoreError
from helix_sae.mrna.tokens import TokenizedSequence
from helix_sae.storage import Verify, sha256_of_file, storage_errors

StorageDtype = Literal["float32", "float16", "bfloat16"]
FORMAT = "helix-sae-activations/1"
METADATA = "helix_sae"

_SHARD_NAME = re.compile(r"(?P<key>[0-9a-f]{64})\.(?P<sha256>[0-9a-f]{64})\.safetensors$")
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
    _write_safetensors(file, arrays, {METADATA: json.dumps(metadata, sort_keys=True, allow_nan=False)})


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


def _write_safetensors(
    file: str, arrays: Mapping[str, tuple[str, np.ndarray]], metadata: Mapping[str, str]
) -> None:
    contiguous = {name: (dtype, np.ascontiguousarray(array)) for name, (dtype, array) in arrays.items()}
    specs = {
        name: TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, (dtype, array) in contiguous.items()
    }
    serialize_file(specs, file, metadata=dict(metadata))


class Shard:
    """A shard opened for reading: a memory map of a local file.

    Parameters
    ----------
    file : str
        The local file.
    path : str
        Named in messages: where the file came from.
    n_bytes, digest
        Size and SHA-256 that the manifest states.
    verify : {"full", "size"}

    Raises
    ------
    StoreError
        If the file is missing, cut short, damaged, or not a shard.
    """

    def __init__(self, file: str, path: str, n_bytes: int, digest: str, verify: Verify) -> None:
        self.path = path
        self.n_bytes = n_bytes
        with storage_errors(path, "read"):
            _check_content(file, path, n_bytes, digest, verify)
            # Torch's tensors are views of the map, NumPy's would be copies.
            try:
                self._file = cast("Any", safe_open)(file, framework="pt")
                self.metadata = cast("dict[str, Any]", json.loads(self._file.metadata()[METADATA]))
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path}: not a shard, or a damaged one ({error}). {_REPLACE}") from error

    def rows(self, tensor: str, start: int = 0, stop: int | None = None) -> Shaped[np.ndarray, "rows *width"]:
        """Rows of a tensor, bfloat16 as float32: a read-only view of the file where they are stored as such."""
        try:
            stored = self._file.get_tensor(tensor)[start:stop]
        except SafetensorError as error:
            raise StoreError(f"{self.path}: the shard has no tensor {tensor!r} ({error}).") from error
        rows = (stored.float() if str(stored.dtype) == "torch.bfloat16" else stored).numpy()
        rows.flags.writeable = False
        return rows

    def activations(
        self, site: str, start: int = 0, stop: int | None = None
    ) -> Float[np.ndarray, "rows width"]:
        """Activations of a site as float32."""
        return self.rows(f"site:{site}", start, stop).astype(np.float32, copy=False)


_REPLACE = "Delete it and run the extraction again: only this shard is recomputed."


def _check_content(file: str, path: str, n_bytes: int, digest: str, verify: Verify) -> None:
    size = os.path.getsize(file)
    if size != n_bytes:
        raise StoreError(f"{path}: the shard has {size} bytes where the manifest says {n_bytes}. {_REPLACE}")
    if verify == "full" and sha256_of_file(file) != digest:
        raise StoreError(
            f"{path}: the shard's content has changed (its SHA-256 is not that of the manifest). {_REPLACE}"
        )


def shard_path(root: str, key: str, digest: str) -> str:
    """Path of a shard below the store's root."""
    return f"{shard_folder(root, key)}/{key}.{digest}.safetensors"


def shard_folder(root: str, key: str) -> str:
    """Folder of a shard below the store's root."""
    return f"{root}/shards/{key[:2]}"


def parse_shard_path(path: str) -> tuple[str, str] | None:
    """Key and SHA-256 in the name of a shard; None if the file is something else."""
    match = _SHARD_NAME.search(path)
    return None if match is None else (match["key"], match["sha256"])


def entry_of_file(
    fs: Any, root: str, path: str, rows_of_sequence: Sequence[int], place: str | None = None
) -> ShardEntry | None:
    """Entry of a finished shard from its header alone; None if the file is cut short or no shard.

    Parameters
    ----------
    fs, path
        Where it is now.
    rows_of_sequence : sequence of int
        Tokens kept of each of its sequences.
    place : str, optional
        Where it will be, if it is a draft.
    """
    named = parse_shard_path(place or path)
    with storage_errors(path, "read"):
        size = int(fs.size(path))
        found = None if named is None else _header(fs, path, size)
    if named is None or found is None:
        return None
    sites = {
        tensor.removeprefix("site:"): entry for tensor, entry in found.items() if tensor.startswith("site:")
    }
    errors = json.loads(found["__metadata__"][METADATA])["errors"]
    return ShardEntry(
        key=named[0],
        file=(place or path).removeprefix(root).lstrip("/"),
        sha256=named[1],
        bytes=size,
        n_sequences=len(rows_of_sequence),
        n_tokens=sum(rows_of_sequence),
        rows_of_sequence=tuple(rows_of_sequence),
        widths={site: entry["shape"][1] for site, entry in sites.items()},
        errors={site: StorageError(*values) for site, values in errors.items()},
    )


def _header(fs: Any, path: str, size: int) -> dict[str, Any] | None:
    """Header of a safetensors file, perhaps a remote one, which the library cannot open; None if it is cut short."""
    length = int.from_bytes(fs.read_block(path, 0, 8), "little")
    if not 0 < length <= size - 8:
        return None
    try:
        header = cast("dict[str, Any]", json.loads(fs.read_block(path, 8, length)))
        ends = [entry["data_offsets"][1] for tensor, entry in header.items() if tensor != "__metadata__"]
        return header if 8 + length + max(ends) == size else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
