"""The second pass: every sequence is encoded, shard by shard, and the version that names the shards is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from helix_sae.activations import Part
from helix_sae.codes.plan import CodesPlan, CodesWork, digest_of_sae, encode_part
from helix_sae.codes.shards import FORMAT, CodesEntry, entry_of_file, write_codes
from helix_sae.codes.store import StoredCodes, open_codes
from helix_sae.engine import map_work
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.shards.files import look_at, present_shards, publish_shard
from helix_sae.shards.manifest import write_version
from helix_sae.storage import open_filesystem

_log = logging.getLogger(__name__)


def save_codes(
    plan: CodesPlan,
    url: str,
    folder: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> StoredCodes:
    """Encode every sequence, where the engine works, and store the codes.

    Memory is that of a few shards, however many sequences there are.

    Parameters
    ----------
    plan : CodesPlan
    url : str
        Root of the store, a local path or any fsspec URL. Shards that it has are not made again.
    folder : str, optional
        Of the version, a path of the store's file system; the root itself when not given.
    storage_options : mapping, optional
        Of the fsspec file system.

    Raises
    ------
    DataError
        If an activation is not finite, or of another width than its autoencoder takes.
    StoreError
        If a shard cannot be written.
    """
    options = dict(storage_options or {})
    began = time.perf_counter()
    fs, root = open_filesystem(url, options)
    root = root.rstrip("/")
    works = plan.works()
    finished = _finished(fs, root, works)
    missing = [work for work in works if work.key not in finished]
    stated = _stated(plan)
    store = partial(store_part, saes=dict(plan.saes), stated=stated, url=url, storage_options=options)
    made = map_work(
        partial(read_part, sites=tuple(plan.saes)),
        missing,
        finish=store,
        label="codes",
        sizes=[sum(work.part.n_tokens) for work in missing],
        unit="tokens",
    )
    for index, entry in made:
        finished[missing[index].key] = entry
    # Other threads have written, each through a file system of its own, of whose files this one may not know.
    fs.invalidate_cache()
    entries = [finished[work.key] for work in works]
    manifest = {
        **stated,
        "n_sequences": sum(entry.n_sequences for entry in entries),
        "n_tokens": sum(entry.n_tokens for entry in entries),
        "shards": [entry._asdict() for entry in entries],
    }
    sequences = [work.part for work in works]
    ids, sizes = [part.sequence_ids for part in sequences], [part.n_tokens for part in sequences]
    write_version(fs, folder or root, manifest, ids, sizes)
    _log.info(
        "Codes: %s sequences, %s tokens; %d shards encoded, %d reused; %s bytes; %.1f s.",
        f"{manifest['n_sequences']:,}",
        f"{manifest['n_tokens']:,}",
        len(missing),
        len(works) - len(missing),
        f"{sum(entry.bytes for entry in entries):,}",
        time.perf_counter() - began,
    )
    return open_codes(url, folder or root, options)


def _stated(plan: CodesPlan) -> dict[str, object]:
    """What codes depend on besides the sequences, as the manifest and each shard state it."""
    described = plan.activations.described
    kept = {name: described[name] for name in ("fingerprint", "dtype", "precision", "codon_markers")}
    return {
        "format": FORMAT,
        **kept,
        "sites": list(plan.saes),
        "d_sae": {site: sae.d_sae for site, sae in plan.saes.items()},
        "autoencoders": {site: digest_of_sae(sae) for site, sae in plan.saes.items()},
    }


def _finished(fs: Any, root: str, works: list[CodesWork]) -> dict[str, CodesEntry]:
    """Shards that the store has whole, by key; what killed processes left is removed."""
    wanted = {work.key: work for work in works}
    finished: dict[str, CodesEntry] = {}
    for key, path in present_shards(fs, root, wanted):
        file = look_at(fs, path) if key not in finished else None
        if file is not None:
            finished[key] = entry_of_file(root, file, wanted[key].part.n_tokens)
    return finished


class ReadPart(NamedTuple):
    """Activations of a shard's sequences, not encoded yet."""

    work: CodesWork
    part: Part


def read_part(work: CodesWork, *, sites: tuple[str, ...]) -> ReadPart:
    """Read activations, or run the model for them; with :func:`store_part` the piece of work that travels to a worker."""
    return ReadPart(work, work.part(sites))


def store_part(
    read: ReadPart,
    *,
    saes: Mapping[str, SparseAutoencoder],
    stated: Mapping[str, object],
    url: str,
    storage_options: Mapping[str, Any],
) -> CodesEntry:
    """Encode a part, name it by its checksum and write it."""
    fs, root = open_filesystem(url, storage_options)
    root = root.rstrip("/")
    codes = encode_part(read.part, saes)
    key = read.work.key
    file = publish_shard(fs, root, key, lambda draft: write_codes(draft, codes, {**stated, "key": key}))
    return entry_of_file(root, file, read.work.part.n_tokens)
