"""Looking after a store of activations: what is in it, whether it is whole, what nothing needs any more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from helix_sae.activations.shards import parse_shard_path
from helix_sae.activations.store import read_index, read_manifest
from helix_sae.activations.writing import MANIFEST
from helix_sae.errors import HelixSaeError, StoreError
from helix_sae.storage import is_local, open_filesystem, storage_errors
from helix_sae.temporary import TEMPORARY_PREFIX

_READ_BLOCK = 1 << 22


class StoredVersion(NamedTuple):
    """One version of a store.

    Attributes
    ----------
    version : str
        As ``--load-versions`` takes it; empty for a store without versions.
    folder : str
        Where its manifest is.
    manifest : dict
    """

    version: str
    folder: str
    manifest: dict[str, Any]

    @property
    def n_bytes(self) -> int:
        """Bytes of its shards, which other versions may share."""
        return sum(int(entry["bytes"]) for entry in self.manifest["shards"])


class Problem(NamedTuple):
    """A file that is not as a manifest says, and the versions that need it."""

    path: str
    what: str
    versions: tuple[str, ...]


def list_versions(url: str, storage_options: Mapping[str, Any] | None = None) -> list[StoredVersion]:
    """List the whole versions of a store, oldest first.

    Raises
    ------
    StoreError
        If there is no store at ``url``, or a manifest is damaged.
    """
    fs, root = _open_store(url, storage_options)
    name = root.rsplit("/", 1)[-1]
    with storage_errors(root, "listed"):
        manifests = sorted(cast("list[str]", fs.glob(f"{root}/*/{name}/{MANIFEST}")))
        if fs.exists(f"{root}/{MANIFEST}"):
            manifests.append(f"{root}/{MANIFEST}")
    folders = [path.rsplit("/", 1)[0] for path in manifests]
    return [StoredVersion("" if f == root else f.split("/")[-2], f, read_manifest(fs, f)) for f in folders]


def verify_store(url: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[Problem | None]:
    """Compare every file that a manifest names with its size and SHA-256.

    Yields
    ------
    Problem or None
        One for each file: what is wrong, or None when it is whole.
    """
    fs, root = _open_store(url, storage_options)
    named: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for version in list_versions(url, storage_options):
        try:
            read_index(fs, version.folder, version.manifest)
        except HelixSaeError as error:
            yield Problem(
                f"{version.folder}/{version.manifest['index']['file']}", str(error), (version.version,)
            )
        for entry in cast("list[dict[str, Any]]", version.manifest["shards"]):
            named.setdefault(str(entry["file"]), (entry, []))[1].append(version.version)
    for file, (entry, versions) in sorted(named.items()):
        what = _difference(fs, f"{root}/{file}", entry)
        yield None if what is None else Problem(f"{root}/{file}", what, tuple(versions))


def find_garbage(
    url: str, older_than_s: float, storage_options: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Find shards that no manifest names, and what killed processes left half-written.

    Parameters
    ----------
    url : str
    older_than_s : float
        Younger files are left alone: a run that is under way has not written its manifest yet.

    Returns
    -------
    dict of path -> bytes
    """
    fs, root = _open_store(url, storage_options)
    named = {
        f"{root}/{entry['file']}"
        for v in list_versions(url, storage_options)
        for entry in v.manifest["shards"]
    }
    latest = datetime.now(tz=UTC).timestamp() - older_than_s
    garbage: dict[str, int] = {}
    with storage_errors(root, "listed"):
        for path, info in sorted(cast("dict[str, dict[str, Any]]", fs.find(root, detail=True)).items()):
            is_shard = parse_shard_path(path) is not None and path not in named
            is_left = any(part.startswith(TEMPORARY_PREFIX) for part in path.removeprefix(root).split("/"))
            if (is_shard or is_left) and fs.modified(path).timestamp() <= latest:
                garbage[path] = int(info["size"])
    return garbage


def remove_garbage(
    url: str, garbage: Mapping[str, int], storage_options: Mapping[str, Any] | None = None
) -> None:
    """Remove files that :func:`find_garbage` found."""
    fs, _ = _open_store(url, storage_options)
    for path in garbage:
        with storage_errors(path, "removed"):
            fs.rm_file(path)
            folder = Path(path).parent
            if is_local(fs) and folder.name.startswith(TEMPORARY_PREFIX) and not any(folder.iterdir()):
                folder.rmdir()


def _open_store(url: str, storage_options: Mapping[str, Any] | None) -> tuple[Any, str]:
    fs, root = open_filesystem(url, storage_options)
    root = root.rstrip("/")
    with storage_errors(url, "opened"):
        if not fs.isdir(root):
            raise StoreError(f"{url}: there is no store of activations.")
    return fs, root


def _difference(fs: Any, path: str, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a shard; None when nothing is."""
    if not fs.exists(path):
        return "is missing"
    size = int(fs.size(path))
    if size != entry["bytes"]:
        return f"has {size} bytes, not {entry['bytes']}"
    digest = hashlib.sha256()
    with storage_errors(path, "read"), fs.open(path, "rb") as file:
        while block := file.read(_READ_BLOCK):
            digest.update(block)
    return None if digest.hexdigest() == entry["sha256"] else "has changed: its SHA-256 is another"
