"""Computing the shards of a plan into a store, and writing the version that names them: :mod:`helix_sae.shards`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from helix_sae.activations.activations import Activations
from helix_sae.activations.plan import Compute, ExtractionPlan, ShardSpec
from helix_sae.activations.shards import ShardEntry, entry_of_file, write_shard
from helix_sae.activations.store import open_activations
from helix_sae.activations.stream import StreamedShards
from helix_sae.engine import map_work
from helix_sae.errors import StoreError
from helix_sae.mrna.tokens import TokenizedSequence
from helix_sae.shards.files import look_at, present_shards, publish_shard
from helix_sae.shards.manifest import write_version
from helix_sae.storage import check_room, open_filesystem

_log = logging.getLogger(__name__)

_SMALLER = (
    "Take a sample (extraction.mode: auto, or fewer extraction.tokens_per_sequence), store none (mode:"
    " stream), or name another disk (data_root)."
)


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
        If the disk is too small (then nothing is written), a shard cannot be written, or the model's
        activations cannot be stored; or if they are stored already.
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
    check_room(fs, folder, plan.stored_bytes(missing) or 0, _SMALLER)
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
    ids, rows = [s.sequence_ids for s in plan.shards], [e.rows_of_sequence for e in entries]
    write_version(fs, folder, _manifest(plan, entries), ids, rows)
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
    wanted = {spec.key: spec for spec in plan.shards}
    finished: dict[str, ShardEntry] = {}
    for key, path in present_shards(fs, root, wanted):
        file = look_at(fs, path) if key not in finished else None
        if file is not None:
            finished[key] = entry_of_file(root, file, wanted[key].kept(plan.tokens_per_sequence))
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

    def write(draft: str) -> None:
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

    file = publish_shard(fs, root, spec.key, write)
    return entry_of_file(root, file, spec.kept(described["tokens_per_sequence"]))


def _manifest(plan: ExtractionPlan, entries: Sequence[ShardEntry]) -> dict[str, object]:
    fields = ("key", "file", "sha256", "bytes", "n_sequences", "n_tokens")
    return {
        **plan.described(),
        "widths": entries[0].widths,
        "n_sequences": sum(entry.n_sequences for entry in entries),
        "n_tokens": sum(entry.n_tokens for entry in entries),
        "n_tokens_computed": sum(spec.n_tokens for spec in plan.shards),
        "storage_error": {site: _site_error(entries, site) for site in plan.sites},
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
