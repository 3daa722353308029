"""Reader of BED-like files: named intervals of transcripts that become concepts of the user's own.

Columns are ``chrom`` (here the ``sequence_id``), ``start``, ``end`` (0-based half-open) and ``name``,
separated by tabs; further ones (score, strand...) are not read. Lines that start with ``#``, ``track`` or
``browser`` are left out. Where an interval lies on the reverse strand it belongs to a genome and not to a
transcript, which is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any, cast

import fsspec
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.mrna.motifs import INTERVAL_COLUMNS
from helix_sae.mrna.readers import file_errors, open_file, read_lines, require_file

_NOT_A_RECORD = ("#", "track ", "track\t", "browser ")
_STRAND = 5
_NEEDED = len(INTERVAL_COLUMNS)


def read_intervals(path: str, storage_options: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Read a BED-like file of named intervals, plain or compressed, local or at any fsspec URL.

    Parameters
    ----------
    path : str
        The file.
    storage_options : mapping, optional
        Arguments of the fsspec file system.

    Returns
    -------
    DataFrame
        ``sequence_id``, ``start``, ``end``, ``name``; still to be checked against a table
        (:func:`helix_sae.mrna.motifs.check_intervals`).

    Raises
    ------
    DataError
        If there is no such file, or a line is malformed; names the file and the line.
    """
    with file_errors(path):
        fs, root = cast("tuple[Any, str]", fsspec.core.url_to_fs(path, **dict(storage_options or {})))
        require_file(fs, root, path)
        with open_file(fs, root) as stream:
            return parse_intervals(stream, path)


def parse_intervals(stream: IO[bytes], name: str) -> pd.DataFrame:
    """Parse the lines of a BED-like file; see :func:`read_intervals`."""
    rows: list[tuple[str, int, int, str]] = []
    for number, line in enumerate(read_lines(stream, name), start=1):
        if not line.strip() or line.startswith(_NOT_A_RECORD):
            continue
        fields = line.rstrip("\n").split("\t")
        place = f"{name}, line {number}"
        if len(fields) < _NEEDED:
            raise DataError(
                f"{place}: {len(fields)} fields where an interval has {_NEEDED}, separated by tabs: "
                "sequence_id, start, end, name."
            )
        sequence_id, start, end, concept = (field.strip() for field in fields[:_NEEDED])
        if not (_is_position(start) and _is_position(end) and int(start) < int(end)):
            raise DataError(
                f"{place}: {start!r} to {end!r} is no range of positions, 0-based and half-open as in BED."
            )
        if not sequence_id or not concept:
            raise DataError(f"{place}: an interval needs a sequence_id and a name.")
        if len(fields) > _STRAND and fields[_STRAND].strip() == "-":
            raise DataError(
                f"{place}: an interval on the reverse strand; coordinates must be those of the transcripts."
            )
        rows.append((sequence_id, int(start), int(end), concept))
    return interval_table(rows)


def interval_table(rows: Iterable[tuple[str, int, int, str]] = ()) -> pd.DataFrame:
    """A table of intervals, typed also where it is empty."""
    table = pd.DataFrame(list(rows), columns=list(INTERVAL_COLUMNS))
    return table.astype({"sequence_id": "object", "start": "int64", "end": "int64", "name": "object"})


def _is_position(text: str) -> bool:
    # Longer numbers do not fit an integer column, and no sequence is that long.
    return text.isascii() and text.isdigit() and len(text) <= 15
