"""Computing the shards of a plan into a store, and writing the version that names them.

Layout below the store's root::

    shards/<ab>/<key>.<sha256>.safetensors       shared by all versions (helix_sae.activations.shards)
    <version>/<name>/index.parquet               sequence_id, shard, start, n_tokens
    <version>/<name>/manifest.json               written last: without it there is no version

A rerun computes the shards that are missing; an interrupted run goes on where it was.
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from fsspec.implementations.local import LocalFileSystem
from jaxtyping import Float

from helix_sae.activations.activations import Activations
from helix_sae.activations.plan import Compute, ExtractionPlan, ShardSpec
from helix_sae.activations.shards import (
    ShardEntry,
    entry_of_file,
    parse_shard_path,
    shard_folder,
    shard_path,
    write_shard,
)
from helix_sae.activations.store import manifest_sha256, open_activations
from helix_sae.activations.stream import StreamedShards
from helix_sae.engine import map_work
from helix_sae.errors import StoreError
from helix_sae.mrna.tokens import TokenizedSequence
from helix_sae.storage import (
    canonical_json,
    draft_for,
    is_local,
    open_filesystem,
    publish,
    sha256,
    sha256_of_file,
    storage_errors,
    write_file,
)
from helix_sae.temporary import remove_abandoned

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
INDEX = "index.parquet"


def save_activations(
    activations: Activations,
    url: str,
    folder: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Activations:
    """Compute activations, where the engine works, and store them.

    Parameters
    ----------
    activations : Activations
        Of a plan, see :func:`~helix_sae.activations.stream.stream_activations`.
    url : str
        Root of the store, a local path or any fsspec URL. Shards that it has are not computed again.
    folder : str, optional
        Of the version, a path of the store's file system; the root itself when not given.
    storage_options : mapping, optional
        Of the fsspec file system.

    Returns
    -------
    Activations
        Those that are stored now.

    Raises
    ------
    StoreError
        If a shard cannot be written, or the model's activations cannot be stored; or if they are stored
        already.
    """
    source = activations.source
    if not isinstance(source, StreamedShards):
        raise StoreError(f"{source.name}: these activations are stored already; copy the store instead.")
    plan, options = source.plan, dict(storage_options or {})
    began = time.perf_counter()
    fs, root = open_filesystem(url, options)
    root = root.rstrip("/")
    folder = folder or root
    finished = finished_shards(fs, root, plan)
    missing = [spec for spec in plan.shards if spec.key not in finished]
    store = partial(store_shard, described=plan.described(), url=url, storage_options=options)
    entries_made = map_work(
        partial(compute_shard, compute=plan.compute),
        missing,
        finish=store,
        label="activations",
        sizes=[spec.n_tokens for spec in missing],
        unit="tokens",
    )
    for index, entry in entries_made:
        finished[missing[index].key] = entry
    # Other threads have written, each through a file system of its own, of whose files this one may not know.
    fs.invalidate_cache()
    entries = [finished[spec.key] for spec in plan.shards]
    index_data = _index_bytes(plan.shards, entries)
    write_file(fs, f"{folder}/{INDEX}", index_data)
    manifest = _manifest(plan, entries, index_data)
    write_file(fs, f"{folder}/{MANIFEST}", canonical_json({**manifest, "sha256": manifest_sha256(manifest)}))
    _log.info(
        "Activations: %s sequences, %s tokens stored of %s; %d shards computed, %d reused; %s bytes; %.1f s.",
        f"{sum(e.n_sequences for e in entries):,}",
        f"{sum(e.n_tokens for e in entries):,}",
        f"{sum(s.n_tokens for s in plan.shards):,}",
        len(missing),
        len(entries) - len(missing),
        f"{sum(e.bytes for e in entries):,}",
        time.perf_counter() - began,
    )
    return open_activations(url, folder, options)


def finished_shards(fs: Any, root: str, plan: ExtractionPlan) -> dict[str, ShardEntry]:
    """Shards of a plan that the store has whole, by key; what killed processes left is removed."""
    finished: dict[str, ShardEntry] = {}
    wanted = {spec.key: spec for spec in plan.shards}
    with storage_errors(root, "read"):
        fs.invalidate_cache(root)
        if not fs.exists(f"{root}/shards"):
            return finished
        if is_local(fs):
            for folder in cast("list[str]", fs.ls(f"{root}/shards", detail=False)):
                remove_abandoned(folder)
        found = sorted(cast("list[str]", fs.find(f"{root}/shards")))
    for path in found:
        key = (parse_shard_path(path) or ("",))[0]
        if key in wanted and key not in finished:
            entry = entry_of_file(fs, root, path, wanted[key].kept(plan.tokens_per_sequence))
            if entry is not None:
                finished[key] = entry
    return finished


class ComputedShard(NamedTuple):
    """A shard's activations, not stored yet."""

    spec: ShardSpec
    tokens: Sequence[TokenizedSequence]
    activations: Mapping[str, Float[np.ndarray, "n_tokens width"]]


def compute_shard(spec: ShardSpec, *, compute: Compute) -> ComputedShard:
    """Run the model over the sequences of one shard; with :func:`store_shard` the piece of work that travels to a worker."""
    tokens = spec.tokens()
    return ComputedShard(spec, tokens, compute(tokens))


def store_shard(
    shard: ComputedShard, *, described: Mapping[str, Any], url: str, storage_options: Mapping[str, Any]
) -> ShardEntry:
    """Serialise a shard, name it by its checksum and write it."""
    fs, root = open_filesystem(url, storage_options)
    root = root.rstrip("/")
    spec = shard.spec
    folder = shard_folder(root, spec.key)
    with storage_errors(folder, "written"), draft_for(fs, folder) as draft:
        write_shard(
            draft,
            shard.activations,
            shard.tokens,
            spec.sequence_ids,
            described["sites"],
            described["dtype"],
            described["tokens_per_sequence"],
            {**described, "key": spec.key},
        )
        path = shard_path(root, spec.key, sha256_of_file(draft))
        kept = spec.kept(described["tokens_per_sequence"])
        entry = entry_of_file(LocalFileSystem(), root, draft, kept, place=path)
        if entry is None:
            raise StoreError(f"{path}: the shard was cut short as it was written; run again.")
        publish(fs, draft, path)
    return entry


def _index_bytes(specs: Sequence[ShardSpec], entries: Sequence[ShardEntry]) -> bytes:
    """Where the rows of each sequence are, as Parquet."""
    rows = [np.array(entry.rows_of_sequence, dtype=np.int64) for entry in entries]
    index = pd.DataFrame(
        {
            "sequence_id": [name for spec in specs for name in spec.sequence_ids],
            "shard": np.repeat(np.arange(len(rows), dtype=np.int32), [len(r) for r in rows]),
            "start": np.concatenate([np.cumsum(r) - r for r in rows]),
            "n_tokens": np.concatenate(rows),
        }
    )
    stream = io.BytesIO()
    index.to_parquet(stream, index=False)
    return stream.getvalue()


def _manifest(plan: ExtractionPlan, entries: Sequence[ShardEntry], index_data: bytes) -> dict[str, object]:
    fields = ("key", "file", "sha256", "bytes", "n_sequences", "n_tokens")
    return {
        **plan.described(),
        "widths": entries[0].widths,
        "n_sequences": sum(entry.n_sequences for entry in entries),
        "n_tokens": sum(entry.n_tokens for entry in entries),
        "n_tokens_computed": sum(spec.n_tokens for spec in plan.shards),
        "storage_error": {site: _site_error(entries, site) for site in plan.sites},
        "index": {"file": INDEX, "sha256": sha256(index_data), "bytes": len(index_data)},
        "shards": [{field: getattr(entry, field) for field in fields} for entry in entries],
    }


def _site_error(entries: Sequence[ShardEntry], site: str) -> dict[str, float]:
    """Largest absolute error and relative root-mean-square error of storing a site."""
    errors = [entry.errors[site] for entry in entries]
    total = math.fsum(e.sum_sq for e in errors)
    lost = math.fsum(e.error_sum_sq for e in errors)
    return {
        "max_abs": max(e.max_abs for e in errors),
        "relative_rms": math.sqrt(lost / total) if total else 0.0,
    }
