"""What a shard of codes (:mod:`helix_sae.shards.files`) holds. Its key is a hash of the activations' key and the autoencoders.

Tensors: ``offsets`` int64 (sequences + 1,) and ``is_nucleotide`` uint8 (tokens,); for each site, as CSR
matrices of ``d_sae`` columns in three tensors (``.values`` float32, ``.features`` int16 or int32, ``.starts``
int32), ``codes:<site>`` with a row a token, ``mean:<site>`` and ``max:<site>`` with a row a sequence; and the
sums that each feature's statistics are made of: ``n_active:<site>`` int64, ``total:<site>`` float64,
``largest:<site>`` float32 (d_sae,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse

from helix_sae.errors import DataError, StoreError
from helix_sae.sae.codes import FeatureSums, PooledCodes, TokenCodes
from helix_sae.shards.files import Shard, ShardFile, parse_shard_path, write_tensors

FORMAT = "helix-sae-codes/1"
_MOST_PAIRS = 2**31 - 1
_MOST_NARROW = 2**15
"""So many features are numbered by int16."""


class CodesEntry(NamedTuple):
    """A finished shard, as the manifest lists it."""

    key: str
    file: str
    sha256: str
    bytes: int
    n_sequences: int
    n_tokens: int


def write_codes(file: str, codes: Mapping[str, TokenCodes], stated: Mapping[str, object]) -> None:
    """Write the codes of some sequences at all sites into a local file.

    Raises
    ------
    DataError
        If there are more active pairs than a shard can hold.
    OSError
        If the file cannot be written.
    """
    first = next(iter(codes.values()))
    arrays: dict[str, tuple[str, np.ndarray]] = {
        "offsets": ("int64", first.offsets),
        "is_nucleotide": ("uint8", first.is_nucleotide.astype(np.uint8)),
    }
    for site, of_site in codes.items():
        pooled = of_site.pooled()
        for name, matrix in (("codes", of_site.codes), ("mean", pooled.mean), ("max", pooled.maximum)):
            arrays.update(_of_matrix(f"{name}:{site}", matrix))
        arrays[f"n_active:{site}"] = ("int64", pooled.sums.n_active)
        arrays[f"total:{site}"] = ("float64", pooled.sums.total)
        arrays[f"largest:{site}"] = ("float32", pooled.sums.largest)
    d_sae = {site: int(of_site.codes.shape[1]) for site, of_site in codes.items()}
    write_tensors(file, arrays, {**stated, "d_sae": d_sae, "sequence_ids": first.sequence_id.tolist()})


def _of_matrix(name: str, matrix: scipy.sparse.csr_array) -> dict[str, tuple[str, np.ndarray]]:
    if matrix.nnz > _MOST_PAIRS:
        raise DataError(
            f"{name}: {matrix.nnz:,} active features in one shard, which holds at most {_MOST_PAIRS:,}; lower"
            " extraction.shard_tokens."
        )
    narrow = np.int16 if matrix.shape[1] <= _MOST_NARROW else np.int32
    return {
        f"{name}.values": ("float32", matrix.data.astype(np.float32, copy=False)),
        f"{name}.features": (np.dtype(narrow).name, matrix.indices.astype(narrow, copy=False)),
        f"{name}.starts": ("int32", matrix.indptr.astype(np.int32, copy=False)),
    }


def read_matrix(shard: Shard, name: str, n_columns: int) -> scipy.sparse.csr_array:
    """One of a shard's matrices, on views of the file.

    Raises
    ------
    StoreError
        If it is none: compiled code, which trusts its indices, must not see it.
    """
    values, features, starts = (shard.rows(f"{name}.{part}") for part in ("values", "features", "starts"))
    try:
        parts = (values, features.astype(np.int32, copy=False), starts)
        matrix = scipy.sparse.csr_array(parts, shape=(len(starts) - 1, n_columns))
        matrix.check_format(full_check=True)
        if not np.isfinite(matrix.data).all():
            raise ValueError("a value is not finite")
    except ValueError as error:
        raise StoreError(
            f"{shard.path}: {name} is no sparse matrix ({error}); it was damaged or tampered with. Load"
            " another version."
        ) from error
    return matrix


def read_codes(shard: Shard, site: str) -> TokenCodes:
    """Codes of a shard's sequences at a site."""
    return TokenCodes(
        read_matrix(shard, f"codes:{site}", _width(shard, site)),
        shard.rows("offsets"),
        np.array(shard.metadata["sequence_ids"], dtype=object),
        shard.rows("is_nucleotide").astype(bool),
    )


def read_pooled(shard: Shard, site: str) -> PooledCodes:
    """Pooled codes of a shard's sequences at a site, and what its features' statistics are made of."""
    d_sae = _width(shard, site)
    n_active, total, largest = (shard.rows(f"{name}:{site}") for name in ("n_active", "total", "largest"))
    sums = FeatureSums(len(shard.rows("is_nucleotide")), n_active, total, largest)
    mean, maximum = (read_matrix(shard, f"{name}:{site}", d_sae) for name in ("mean", "max"))
    return PooledCodes(mean, maximum, sums)


def _width(shard: Shard, site: str) -> int:
    return int(cast("dict[str, Any]", shard.metadata["d_sae"])[site])


def entry_of_file(root: str, file: ShardFile, n_tokens: Sequence[int]) -> CodesEntry:
    """Entry of a finished shard; ``n_tokens`` of each of its sequences."""
    key, digest = cast("tuple[str, str]", parse_shard_path(file.path))
    place = file.path.removeprefix(root).lstrip("/")
    return CodesEntry(key, place, digest, file.n_bytes, len(n_tokens), sum(n_tokens))
