"""Files that are there whole or not at all, on a local disk.

What is half-written stands in a folder of its own beside its place. The folder's name tells whose it is, so
that what a killed process left can be removed, with the temporary files that libraries make beside those they
are asked for.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError

from helix_sae.errors import StoreError

TEMPORARY_PREFIX = ".tmp-"

_COPIES_PREFIX = "helix-sae"
_NOBODYS_AFTER_S = 7 * 24 * 3600.0
"""A temporary file that was not touched for so long belongs to nobody, whoever began it."""

_counter = itertools.count()


def temporary_prefix() -> str:
    """Start of the names of this process's temporary files and folders."""
    return f"{_machine_prefix()}{os.getpid()}-"


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Path to write instead of this one, which then takes its place: whole, or not at all where writing fails.

    What killed processes left half-written beside it is removed.
    """
    folder = os.path.dirname(path) or "."
    remove_abandoned(folder)
    with draft_in(folder) as draft:
        yield draft
        publish_draft(draft, path)


@contextmanager
def draft_in(folder: str) -> Iterator[Path]:
    """Path of a file to write, for :func:`publish_draft`, below a folder, which is made if needed; removed in the end.

    Raises
    ------
    OSError
        If the system refuses, also where safetensors has only put it into words.
    """
    os.makedirs(folder, exist_ok=True)
    with emptied(Path(folder) / f"{temporary_prefix()}{next(_counter)}") as own:
        draft = own / "draft"
        try:
            yield draft
        except SafetensorError as error:
            cause = re.search(r"os error (\d+)", str(error))
            if cause is None:
                raise
            raise OSError(int(cause[1]), str(error), str(draft)) from error


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Make a temporary folder of this process, and remove it in the end.

    What has its name already is what a killed process of the same number left.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_draft(draft: str | Path, path: str | Path) -> None:
    """Give a finished draft its place: flushed to the disk and renamed."""
    give_usual_rights(os.path.dirname(draft))
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(os.path.dirname(path) or ".")


def give_usual_rights(folder: str | Path) -> None:
    """Give the files below a temporary folder the rights of any new file.

    Some writers (safetensors among them) leave files that nobody but their owner may read, which is of no use
    in a folder that is shared. The rights that the process gives (its umask) are those of the folder that it
    has just made.
    """
    rights = os.stat(folder).st_mode & 0o666
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o777 != rights:
            path.chmod(rights)


def sync_folder(folder: str) -> None:
    """Flush a folder's list of names to the disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_abandoned(folder: str) -> None:
    """Remove what killed processes left half-written directly in a local folder.

    That is what a process of this machine began that is no longer alive. Of other machines and containers
    nothing is known here: what they began is left alone until it has not been touched for a week.
    """
    for path in Path(folder).glob(f"{TEMPORARY_PREFIX}*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def elsewhere() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for copies of remote files, in the system's place for temporary ones; removed when it is given up.

    What killed processes of the same user left there is removed first.
    """
    place = Path(tempfile.gettempdir())
    for path in place.glob(f"{_COPIES_PREFIX}{TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            if path.stat().st_uid == os.getuid() and _is_abandoned(path, _COPIES_PREFIX):
                shutil.rmtree(path, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{_COPIES_PREFIX}{temporary_prefix()}")


def own_folder(folder: str | Path) -> Path:
    """Make a folder that nobody else may write into, or make sure of one that is there.

    Raises
    ------
    StoreError
        If it cannot be made, belongs to another user, or everybody may write into it: what is read from it
        could be somebody else's.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(
            f"{path}: the folder cannot be made ({error}). Name another folder, and run again."
        ) from error
    found = path.stat(follow_symlinks=False)
    if found.st_uid not in (os.getuid(), 0) or stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_IWOTH:
        raise StoreError(
            f"{path}: this folder is not your own (it is a link, belongs to user {found.st_uid}, or "
            "everybody may write into it), so what lies in it cannot be trusted. Give another one, in a "
            "place that only you may write to (sae_training.scratch.directory)."
        )
    return path


def _is_abandoned(path: Path, before: str = "") -> bool:
    """Whether nobody goes on with a temporary file or folder, told by its name and its age."""
    own = f"{before}{_machine_prefix()}"
    owner = path.name.removeprefix(own).split("-")[0]
    if path.name.startswith(own) and owner.isdigit() and not _is_alive(int(owner)):
        return True
    try:
        touched = max(p.stat().st_mtime for p in [path, *path.rglob("*")])
    except OSError:
        return False  # somebody is at work on it
    return time.time() - touched > _NOBODYS_AFTER_S


@lru_cache(maxsize=1)
def _machine_prefix() -> str:
    """Start of the names of temporary files of this machine: two containers may share its name and number processes alike."""
    parts = [Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")]
    try:
        known = parts[0].read_text(encoding="ascii") + str(parts[1].stat().st_ino)
    except OSError:  # not Linux
        known = str(uuid.getnode())
    return f"{TEMPORARY_PREFIX}{socket.gethostname()}.{sha256(known.encode()).hexdigest()[:8]}-"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
