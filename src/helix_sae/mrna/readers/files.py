"""Opening what users bring: regular files, local or at any fsspec URL, decompressed on the way, with any line ends."""

from __future__ import annotations

import io
import logging
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from helix_sae.errors import DataError

_log = logging.getLogger(__name__)

COMPRESSED = (".gz", ".bz2", ".xz")
"""Suffixes of files that are decompressed when they are read."""

_LISTED_FILES = 5


def open_file(fs: Any, path: str) -> IO[bytes]:
    """Open a file for reading; a compressed one, by its name, is decompressed on the way."""
    return cast("IO[bytes]", fs.open(path, "rb", compression="infer"))


def require_file(fs: Any, path: str, name: str, what: str = "file") -> None:
    """Make sure that a path is a regular file: reading a pipe or a device would wait for ever, or never end.

    Raises
    ------
    DataError
        If there is nothing of that name, or it is something else.
    """
    if not fs.exists(path):
        raise DataError(f"{name}: there is no such {what}. Correct the path; `ls` shows what is there.")
    if not fs.isfile(path):
        kind = "a folder" if fs.isdir(path) else "a pipe, a socket or a device"
        raise DataError(
            f"{name}: is {kind}, not a regular file. Save what it gives to a file, and name that."
        )


@contextmanager
def file_errors(name: str) -> Iterator[None]:
    """Turn what the file system and the decompressors raise into an error that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{name}: the file cannot be read ({error}).") from error


def files_of_folder(
    fs: Any, root: str, path: str, wanted: Callable[[str], bool], known: str = ""
) -> list[str]:
    """Files of a folder whose bare name is wanted, in the order of their names.

    What else lies in the folder is not read, and the log says so: other files, folders below, links to
    nowhere, pipes. Names that begin with a dot are the system's.

    Parameters
    ----------
    fs, root : file system and path in it
    path : str
        The folder as the user named it, for messages.
    wanted : callable
        Of a bare name.
    known : str
        Name of a file that is no input and expected there.
    """
    chosen: list[str] = []
    others: list[str] = []
    for entry in sorted(cast("list[str]", fs.ls(root, detail=False))):
        name = entry.rstrip("/").rsplit("/", 1)[-1]
        if wanted(name) and fs.isfile(entry):
            chosen.append(entry)
        elif not name.startswith(".") and name != known:
            others.append(f"{name}/" if fs.isdir(entry) else name)
    if others and chosen:
        more = f" and {len(others) - _LISTED_FILES} more" if len(others) > _LISTED_FILES else ""
        _log.warning(
            "%s: %d of %d entries of this folder are not read: %s%s",
            path, len(others), len(others) + len(chosen), ", ".join(others[:_LISTED_FILES]), more,
        )  # fmt: skip
    return chosen


def without_compression(path: str) -> str:
    """The name in lower case, without the suffix of a compressed file."""
    name = path.lower()
    return next((name.removesuffix(suffix) for suffix in COMPRESSED if name.endswith(suffix)), name)


def has_suffix(path: str, suffixes: Sequence[str]) -> bool:
    """Whether a file, compressed or not, is named by one of the suffixes."""
    return without_compression(path).endswith(tuple(suffixes))


def read_text(stream: IO[bytes], name: str) -> str:
    """The stream as text, without a byte-order mark."""
    data = stream.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, byte {error.start}: not UTF-8 text ({error.reason}). Save the file as UTF-8."
        ) from error


def read_lines(stream: IO[bytes], name: str) -> io.StringIO:
    r"""The stream as lines that end in ``\n``, whichever of ``\r\n``, ``\r`` and ``\n`` the file has."""
    return io.StringIO(read_text(stream, name), newline=None)
