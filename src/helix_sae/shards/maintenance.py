"""Looking after stores of shards, of activations and of codes: what is in them, whether it is whole, what nothing needs any more.

Versions are found by the format that their manifests state, wherever they lie below the folder that is named:
the store itself, a copy of it under another name, or a folder of several stores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

from helix_sae.errors import HelixSaeError, StoreError
from helix_sae.shards.files import parse_shard_path
from helix_sae.shards.manifest import INDEX, read_index, read_manifest
from helix_sae.storage import MANIFEST, is_local, open_filesystem, read_file, storage_errors
from helix_sae.temporary import TEMPORARY_PREFIX

_READ_BLOCK = 1 << 22

FORMATS = ("helix-sae-activations/1", "helix-sae-codes/1")
"""Of the manifests of stores of shards."""

TRASH = ".trash"
"""Folder below the one that is looked after, with what was taken away and can still be put back."""

_WHEN = "%Y-%m-%dT%H.%M.%S.%fZ"


class StoredVersion(NamedTuple):
    """One version of a store.

    Attributes
    ----------
    version : str
        As ``--load-versions`` takes it; empty for a store without versions.
    folder : str
        Where its manifest is.
    root : str
        What the shards' paths in the manifest start from.
    manifest : dict
    """

    version: str
    folder: str
    root: str
    manifest: dict[str, Any]

    @property
    def shards(self) -> dict[str, dict[str, Any]]:
        """Entry of each shard by its path."""
        return {f"{self.root}/{entry['file']}": entry for entry in self.manifest["shards"]}

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
    """List the whole versions of all stores below a folder, oldest first.

    Raises
    ------
    StoreError
        If there is no version below ``url``, or a manifest is damaged.
    """
    fs, top = _open(url, storage_options)
    return _versions(fs, top, _files(fs, top))


def verify_store(url: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[Problem | None]:
    """Compare every file that a manifest names with its size and SHA-256.

    Yields
    ------
    Problem or None
        One for each file: what is wrong, or None when it is whole.

    Raises
    ------
    StoreError
        If there is no version below ``url``, or a manifest is damaged.
    """
    fs, top = _open(url, storage_options)
    named: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for version in _versions(fs, top, _files(fs, top)):
        try:
            read_index(fs, version.folder, version.manifest)
        except HelixSaeError as error:
            yield Problem(f"{version.folder}/{INDEX}", str(error), (version.version,))
        for path, entry in version.shards.items():
            named.setdefault(path, (entry, []))[1].append(version.version)
    for path, (entry, versions) in sorted(named.items()):
        what = _difference(fs, path, entry)
        yield None if what is None else Problem(path, what, tuple(versions))


def find_garbage(
    url: str, older_than_s: float, storage_options: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Find what nothing needs: shards that no manifest below the folder names, and what killed processes left.

    A shard is kept wherever it lies as long as any manifest names its key and SHA-256: it may be a copy's.

    Parameters
    ----------
    url : str
    older_than_s : float
        Younger files are left alone: a run that is under way has not written its manifest yet.

    Returns
    -------
    dict of path -> bytes

    Raises
    ------
    StoreError
        If there is no version below ``url`` (then nothing says what is needed), or a manifest is damaged.
    """
    fs, top = _open(url, storage_options)
    files = _files(fs, top)
    versions = _versions(fs, top, files)
    needed = {_name(path) for version in versions for path in version.shards}
    latest = datetime.now(tz=UTC).timestamp() - older_than_s
    garbage: dict[str, int] = {}
    with storage_errors(top, "listed"):
        for path, info in sorted(files.items()):
            is_shard = parse_shard_path(path) is not None and _name(path) not in needed
            if (is_shard or _is_left(path, top, files)) and fs.modified(path).timestamp() <= latest:
                garbage[path] = int(info["size"])
    return garbage


def remove_garbage(
    url: str,
    garbage: Mapping[str, int],
    storage_options: Mapping[str, Any] | None = None,
    keep_s: float = 0.0,
) -> str | None:
    """Take away files that :func:`find_garbage` found.

    Parameters
    ----------
    keep_s : float
        For how long they stay in the trash, from where :func:`restore` puts them back. Not at all if 0. What
        was in the trash for longer is removed.

    Returns
    -------
    str, optional
        The trash that holds them now.
    """
    fs, top = _open(url, storage_options)
    _empty_trash(fs, top, datetime.now(tz=UTC) - timedelta(seconds=keep_s))
    trash = f"{top}/{TRASH}/{datetime.now(tz=UTC).strftime(_WHEN)}" if keep_s and garbage else None
    for path in garbage:
        with storage_errors(path, "removed"):
            if trash is None:
                fs.rm_file(path)
            else:
                _move(fs, path, f"{trash}/{path.removeprefix(top).lstrip('/')}")
            folder = Path(path).parent
            if is_local(fs) and folder.name.startswith(TEMPORARY_PREFIX) and not any(folder.iterdir()):
                folder.rmdir()
    fs.invalidate_cache()
    return trash


def restore(url: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Put everything that is in the trash back where it was; a file that is there again stays as it is.

    Returns
    -------
    list of str
        Paths that were put back.
    """
    fs, top = _open(url, storage_options)
    back: list[str] = []
    with storage_errors(top, "restored"):
        for path in _trashed(fs, top):
            place = f"{top}/{path.removeprefix(f'{top}/{TRASH}/').partition('/')[2]}"
            if not fs.exists(place):
                _move(fs, path, place)
                back.append(place)
    _empty_trash(fs, top, datetime.now(tz=UTC))
    return back


def abandoned_uploads(
    url: str, older_than_s: float, storage_options: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """Uploads to S3 that were begun below the folder and never completed; they are stored, and paid for, unseen.

    Returns
    -------
    list of dict
        ``Bucket``, ``Key`` and ``UploadId``; empty on every other file system.
    """
    fs, top = _open(url, storage_options)
    if not hasattr(fs, "list_multipart_uploads"):
        return []
    bucket, _, prefix = top.partition("/")
    latest = datetime.now(tz=UTC) - timedelta(seconds=older_than_s)
    with storage_errors(top, "listed"):
        return [
            {"Bucket": bucket, "Key": str(upload["Key"]), "UploadId": str(upload["UploadId"])}
            for upload in cast("list[dict[str, Any]]", fs.list_multipart_uploads(bucket))
            if str(upload["Key"]).startswith(f"{prefix}/") and upload["Initiated"] <= latest
        ]


def abort_uploads(
    url: str, uploads: list[dict[str, str]], storage_options: Mapping[str, Any] | None = None
) -> None:
    """Give up uploads that :func:`abandoned_uploads` found."""
    fs, top = _open(url, storage_options)
    for upload in uploads:
        with storage_errors(top, "cleared of abandoned uploads"):
            fs.call_s3("abort_multipart_upload", **upload)


def _open(url: str, storage_options: Mapping[str, Any] | None) -> tuple[Any, str]:
    fs, top = open_filesystem(url, storage_options)
    top = top.rstrip("/")
    with storage_errors(url, "opened"):
        fs.invalidate_cache()
        if not fs.isdir(top):
            raise StoreError(f"{url}: there is no store of activations or codes.")
    return fs, top


def _files(fs: Any, top: str) -> dict[str, dict[str, Any]]:
    """Every file below the folder with its size; not what is in the trash."""
    with storage_errors(top, "listed"):
        found = cast("dict[str, dict[str, Any]]", fs.find(top, detail=True))
    return {path: info for path, info in found.items() if TRASH not in path.removeprefix(top).split("/")}


def _versions(fs: Any, top: str, files: Mapping[str, Any]) -> list[StoredVersion]:
    """Versions whose manifests are among the files.

    Raises
    ------
    StoreError
    """
    found: list[StoredVersion] = []
    for path in sorted(path for path in files if _name(path) == MANIFEST):
        folder = path.rpartition("/")[0]
        if not _is_of_shards(fs, path):
            continue
        manifest = read_manifest(fs, folder, FORMATS)
        versioned_root = folder.rsplit("/", 2)[0]
        alone = any(other.startswith(f"{folder}/shards/") for other in files)
        root = folder if alone else versioned_root
        found.append(StoredVersion("" if alone else folder.split("/")[-2], folder, root, manifest))
    if not found:
        raise StoreError(
            f"{top}: no version of a store of activations or codes lies here or below. Name the folder that"
            " `filepath` of `activations` or `sparse_codes` in the catalog names; nothing was touched."
        )
    return sorted(found, key=lambda version: (version.version, version.folder))


def _is_of_shards(fs: Any, path: str) -> bool:
    """Whether a manifest is one of a store of shards; a damaged one may be."""
    try:
        content = json.loads(read_file(fs, path))
    except ValueError as error:
        raise StoreError(
            f"{path}: the manifest is damaged ({error}), so that nobody knows what it needs. Remove its"
            " version by hand, or bring the file back."
        ) from error
    return isinstance(content, dict) and cast("dict[str, Any]", content).get("format") in FORMATS


def _is_left(path: str, top: str, files: Mapping[str, Any]) -> bool:
    """Whether a killed process left a file: half-written, or the index of a version that has no manifest."""
    parts = path.removeprefix(top).split("/")
    if any(part.startswith(TEMPORARY_PREFIX) for part in parts):
        return True
    return parts[-1] == INDEX and f"{path.rpartition('/')[0]}/{MANIFEST}" not in files


def _trashed(fs: Any, top: str) -> list[str]:
    return sorted(fs.find(f"{top}/{TRASH}")) if fs.exists(f"{top}/{TRASH}") else []


def _empty_trash(fs: Any, top: str, before: datetime) -> None:
    """Remove for good what was thrown away before some time."""
    with storage_errors(f"{top}/{TRASH}", "emptied"):
        for path in _trashed(fs, top):
            thrown = path.removeprefix(f"{top}/{TRASH}/").partition("/")[0]
            if datetime.strptime(thrown, _WHEN).replace(tzinfo=UTC) <= before:
                fs.rm_file(path)
        if is_local(fs):
            folders = [f for f in Path(top, TRASH).rglob("*") if f.is_dir()] + [Path(top, TRASH)]
            for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


def _move(fs: Any, source: str, target: str) -> None:
    if is_local(fs):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(source).rename(target)
        return
    fs.cp_file(source, target)
    fs.rm_file(source)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


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
