"""Opening what users bring: regular files, local or at any fsspec URL, decompressed, with any line ends."""

from __future__ import annotations

import io
import logging
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from helix_sae.errors import DataError

_log = logging.getLogger(__name__)

COMPRESSED = (".gz", ".bz2", ".xz")
"""Suffixes of files that are decompressed when they are read."""

_LISTED_FILES = 5
_ROOM = 200
"""Content is at most so many times the size of its file: compressed sequences and tables come to 4 to 40."""
_HARMLESS = 2**26
"""Content of so many bytes is taken whatever the size of its file."""
_SHARE_OF_MEMORY = 4
_BLOCK = 2**20


def open_file(fs: Any, path: str) -> IO[bytes]:
    """Open a file for reading; one with a suffix of compression is unpacked, up to :func:`largest_content`."""
    stream = cast("IO[bytes]", fs.open(path, "rb", compression="infer"))
    if not path.lower().endswith(COMPRESSED):
        return stream
    return io.BufferedReader(_Limited(stream, path, largest_content(int(fs.size(path)))), _BLOCK)


def largest_content(n_bytes: int) -> int:
    """Most bytes that a file of this size may unpack to: what sequences come to, and what this machine holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**34
    return min(max(_ROOM * n_bytes, _HARMLESS), memory // _SHARE_OF_MEMORY)


def more_than_it_can_hold(name: str, limit: int) -> DataError:
    """Error for a file whose content is larger than :func:`largest_content`."""
    return DataError(
        f"{name}: holds more than {limit:,} bytes once it is unpacked, far more than sequences in a file of"
        " this size come to, or than this machine can hold. If it is what it should be: unpack it, split it"
        " into several files of one folder, and name the folder."
    )


class _Limited(io.RawIOBase):
    """A stream that fails once it gives more bytes than a limit: a few kilobytes can unpack to terabytes."""

    def __init__(self, stream: IO[bytes], name: str, limit: int) -> None:
        self._stream, self._name, self._limit = stream, name, limit
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._given += len(data)
        if self._given > self._limit:
            raise more_than_it_can_hold(self._name, self._limit)
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_BLOCK) or b"", b""))

    def close(self) -> None:
        self._stream.close()
        super().close()


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
