"""Files on any fsspec file system: whole or not at all, with their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError

from helix_sae.errors import StoreError
from helix_sae.temporary import (
    draft_in,
    elsewhere,
    emptied,
    give_usual_rights,
    publish_draft,
    remove_abandoned,
    sync_folder,
    temporary_prefix,
    whole_file,
)

MANIFEST = "manifest.json"
"""Written last into a folder that is one artefact."""

_BLOCK = 1 << 22

_PATIENCE_S = 10.0
"""So long an object store may take to answer once."""

_LONG, _SLOWEST = 6.0, 0.5e6
"""An object may take so many times that to be sent, and a second more for each so many bytes."""

_ATTEMPTS = 2
"""So often botocore asks again, and s3fs within each of its two loops."""

_OBJECT_STORES = ("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure", "adlfs")
"""Libraries whose errors are no OSErrors."""

Verify = Literal["full", "size"]
"""What is checked when a file is read: its SHA-256, or its size alone."""


_DENIED = "Permission is denied: change the folder's rights, or choose another one in globals.yml."


def open_filesystem(
    filepath: str, credentials: Mapping[str, Any] | None = None, fs_args: Mapping[str, Any] | None = None
) -> tuple[Any, str]:
    """File system and path (without protocol) of a local path or a URL.

    An object store that stalls or fails is asked again a few times, with growing pauses, and given up after
    some two minutes: what botocore and s3fs do by themselves multiplies to half an hour. ``config_kwargs``
    among the options says otherwise.
    """
    options = {**(credentials or {}), **(fs_args or {})}
    fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(str(filepath), **options))
    if hasattr(fs, "retries") and hasattr(fs, "config_kwargs"):
        # On the instance, which fsspec hands to everybody who gives the same options: there is one cache of
        # listings.
        attempts = {"max_attempts": _ATTEMPTS, "mode": "standard"}
        patience = {"connect_timeout": _PATIENCE_S, "read_timeout": _PATIENCE_S, "retries": attempts}
        fs.config_kwargs = {**patience, **fs.config_kwargs}
        fs.retries = _ATTEMPTS
    return fs, path


def inside(root: str, name: object, said_by: str) -> str:
    """Path of a file that another file names, which has to lie below a folder.

    Parameters
    ----------
    root : str
        The folder.
    name : object
        Relative to it; anything but a text is refused as well.
    said_by : str
        Named in the message: the file that names it.

    Raises
    ------
    StoreError
        If the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or parts[0].startswith(("/", "~")) or ".." in parts or "\\" in str(name) or ":" in parts[0]:
        raise StoreError(
            f"{said_by}: names the file {str(name)[:200]!r}, which is not inside its folder; it was "
            "tampered with. Load another version, or make it again."
        )
    return f"{root}/{name}"


def is_local(fs: Any) -> bool:
    """Whether files can be memory-mapped and renamed."""
    return isinstance(fs, LocalFileSystem)


def sha256(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: str) -> str:
    """SHA-256 of a local file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(fs: Any, path: str) -> str:
    """SHA-256 that identifies a file, or everything in a folder, in hexadecimal.

    A folder with a manifest (which states the SHA-256 of its files) is identified by it, any other one by the
    names and contents of its files; hidden ones do not count.

    Raises
    ------
    StoreError
        If it is missing or cannot be read.
    """
    with storage_errors(path, "read"):
        fs.invalidate_cache()
        if fs.isfile(path):
            return _digest_of_file(fs, path)
        if fs.isfile(f"{path}/{MANIFEST}"):
            return _digest_of_file(fs, f"{path}/{MANIFEST}")
        if not fs.isdir(path):
            raise FileNotFoundError(path)
        digest = hashlib.sha256()
        for file in sorted(cast("list[str]", fs.find(path))):
            name = file.removeprefix(path).lstrip("/")
            is_hidden = any(part.startswith(".") for part in name.split("/"))
            # A pipe in the folder would be waited for without end.
            if not is_hidden and (not is_local(fs) or os.path.isfile(file)):
                digest.update(f"{name}\0{_digest_of_file(fs, file)}\0".encode())
        return digest.hexdigest()


def _digest_of_file(fs: Any, path: str) -> str:
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_room(fs: Any, folder: str, n_bytes: int, remedy: str) -> None:
    """Make sure, before the first byte is written, that a local disk has room; of other file systems nobody knows.

    Raises
    ------
    StoreError
        If it has not, with what to do.
    """
    if not is_local(fs):
        return
    place = Path(folder)
    there = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise StoreError(
            f"{folder}: {n_bytes / 1e9:,.1f} GB are to be written, and the disk has {free / 1e9:,.1f}"
            f" GB free; nothing was written. {remedy}"
        )


def canonical_json(content: object) -> bytes:
    """JSON with sorted keys, the same bytes for the same content; NaN is refused."""
    return (
        json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def write_file(fs: Any, path: str, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whenever the process is killed.

    On the local disk: written elsewhere, flushed to the disk, then renamed; what a killed process left
    half-written in the folder is removed. Object stores show an object when it is complete.

    Raises
    ------
    StoreError
        If the disk is full, the folder is read-only, or the file system refuses otherwise.
    """
    with storage_errors(path, "written"):
        if not is_local(fs):
            _send(fs, fs.pipe_file, path, data, len(data))
            return
        with whole_file(path) as file:
            file.write_bytes(data)


def _send(fs: Any, function: Callable[..., Any], first: Any, second: Any, n_bytes: int) -> None:
    """Send an object, and again if it takes far too long: a request whose "continue" never comes has no limit of its own."""
    if not isinstance(fs, AsyncFileSystem):
        function(first, second)
        return
    for attempt in range(_ATTEMPTS + 1):
        try:
            function(first, second, timeout=_LONG * _PATIENCE_S + n_bytes / _SLOWEST)
        except TimeoutError:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(2.0**attempt)
        else:
            return


@contextmanager
def draft_for(fs: Any, folder: str) -> Iterator[str]:
    """Path of a local file to write, for :func:`publish`: below the folder where that is local; removed in the end."""
    if is_local(fs):
        with draft_in(folder) as draft:
            yield str(draft)
    else:
        with elsewhere() as folder:
            yield os.path.join(folder, "file")


def publish(fs: Any, draft: str, path: str) -> None:
    """Give a file written with :func:`draft_for` its place: flushed to the disk and renamed, or sent to an object store."""
    if is_local(fs):
        publish_draft(draft, path)
    else:
        _send(fs, fs.put_file, draft, path, os.path.getsize(draft))


@contextmanager
def working_folder(target: str | None) -> Iterator[Path]:
    """Make a folder to write into: beside its local target, for :func:`replace_folder`, else a temporary one."""
    if target is None:
        with elsewhere() as name:
            yield Path(name)
        return
    name = f"{temporary_prefix()}{os.path.basename(target)}"
    with emptied(Path(os.path.dirname(target)) / name) as folder:
        yield folder


def replace_folder(folder: Path, target: str) -> None:
    """Give a finished :func:`working_folder` its place, which another one may have; what killed processes left there goes."""
    replaced, parent = f"{folder}-replaced", os.path.dirname(target) or "."
    give_usual_rights(folder)
    if os.path.exists(target):
        os.replace(target, replaced)
    os.replace(folder, target)
    sync_folder(parent)
    shutil.rmtree(replaced, ignore_errors=True)
    # Only now: one that was killed may have moved the folder before it out of the way.
    remove_abandoned(parent)


def read_file(fs: Any, path: str) -> bytes:
    """Read a whole file.

    Raises
    ------
    StoreError
        If it is missing or cannot be read.
    """
    with storage_errors(path, "read"):
        return cast("bytes", fs.cat_file(path))


@contextmanager
def storage_errors(path: str, done: str) -> Iterator[None]:
    """Turn what a file system raises into an error that names the file and says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the file is missing, so it cannot be {done}.") from error
    except (OSError, SafetensorError) as error:
        remedies = {
            errno.ENOSPC: "The disk is full: free space and run again; what was completed is kept.",
            errno.EDQUOT: "The disk quota is used up: free space and run again; what was completed is kept.",
            errno.EROFS: "The disk is read-only: choose another folder in globals.yml.",
            errno.EACCES: _DENIED,
            errno.EPERM: _DENIED,
        }
        remedy = remedies.get(_number(error), "Check the path, the connection and the credentials.")
        raise StoreError(f"{path}: cannot be {done} ({error}). {remedy}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _OBJECT_STORES:
            raise
        raise StoreError(
            f"{path}: cannot be {done}: the object store did not do it ({type(error).__name__}: {error}), "
            "asked several times where that could help. Check that it is up, its address, the bucket and "
            "the credentials, and run again: what was completed is kept."
        ) from error


def _number(error: Exception) -> int:
    """The system's number of an error, also where HDF5 or safetensors have only put it into words."""
    told = re.search(r"(?:errno = |os error )(\d+)", str(error))
    return getattr(error, "errno", None) or (int(told[1]) if told else 0)
