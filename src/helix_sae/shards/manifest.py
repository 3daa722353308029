"""The manifest and the index of a version: which shards it has, and where the rows of each sequence are."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from helix_sae.errors import StoreError
from helix_sae.storage import MANIFEST, canonical_json, inside, read_file, sha256, write_file

INDEX = "index.parquet"


def write_version(
    fs: Any,
    folder: str,
    stated: Mapping[str, object],
    sequence_ids: Sequence[Sequence[str]],
    rows: Sequence[Sequence[int]],
) -> None:
    """Write the index of a version and then, last of all, its manifest.

    Parameters
    ----------
    fs, folder
        Where the version is to be.
    stated : mapping
        The manifest, but for its index and checksum.
    sequence_ids, rows : sequence
        Of each shard: its sequences, and how many rows each of them has.
    """
    index = _index_bytes(sequence_ids, rows)
    write_file(fs, f"{folder}/{INDEX}", index)
    manifest = {**stated, "index": {"file": INDEX, "sha256": sha256(index), "bytes": len(index)}}
    write_file(fs, f"{folder}/{MANIFEST}", canonical_json({**manifest, "sha256": manifest_sha256(manifest)}))


def _index_bytes(sequence_ids: Sequence[Sequence[str]], rows: Sequence[Sequence[int]]) -> bytes:
    """Where the rows of each sequence are, as Parquet."""
    counts = [np.array(of_shard, dtype=np.int64) for of_shard in rows]
    index = pd.DataFrame(
        {
            "sequence_id": [name for of_shard in sequence_ids for name in of_shard],
            "shard": np.repeat(np.arange(len(counts), dtype=np.int32), [len(r) for r in counts]),
            "start": np.concatenate([np.cumsum(r) - r for r in counts]),
            "n_tokens": np.concatenate(counts),
        }
    )
    stream = io.BytesIO()
    index.to_parquet(stream, index=False)
    return stream.getvalue()


def read_manifest(fs: Any, folder: str, formats: Collection[str]) -> dict[str, Any]:
    """Read the manifest of a version.

    Parameters
    ----------
    fs, folder
        Where the version is.
    formats : collection of str
        Formats of which it may be one.

    Raises
    ------
    StoreError
        If it is missing, damaged, or of another format.
    """
    path = f"{folder}/{MANIFEST}"
    try:
        manifest = cast("dict[str, Any]", json.loads(read_file(fs, path)))
        found = manifest["format"]
        stated = manifest.get("sha256")
        if stated is not None and stated != manifest_sha256(manifest):
            raise ValueError("its content is not that of its SHA-256")
        for entry in [manifest["index"], *manifest["shards"]] if found in formats else []:
            inside(folder, entry["file"], path)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the manifest is damaged ({error}); load another version.") from error
    if found not in formats:
        raise StoreError(
            f"{path}: a manifest of format {found!r}, not {' or '.join(map(repr, formats))}; run the pipeline"
            " that makes it again."
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
