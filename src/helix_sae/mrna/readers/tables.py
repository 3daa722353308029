"""Readers of tables: CSV, TSV and Parquet.

Every column is kept under its own name; a mapping says later what it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from helix_sae.errors import DataError
from helix_sae.mrna.readers.files import largest_content, more_than_it_can_hold, read_text
from helix_sae.mrna.records import RawRecord, RawRecords, RejectedRecord

_LONGEST_FIELD = 2**31 - 1
_BATCH_ROWS = 1024
_ROW_BYTES = 256
"""What a record takes beside its values."""
_OTHER_DELIMITERS = {"\t": "tabs (name the file .tsv)", ";": "semicolons", ",": "commas (name the file .csv)"}


def read_csv(stream: IO[bytes], name: str, delimiter: str = ",") -> RawRecords:
    """Read a table of text with a header line; cells stay text until they are checked."""
    result = RawRecords([], [])
    with _long_fields():
        rows = csv.reader(io.StringIO(read_text(stream, name), newline=""), delimiter=delimiter, strict=True)
        try:
            header = _header(next(rows, []), name, delimiter)
            for row in rows:
                place = f"line {rows.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    reason = f"{len(row)} fields where the header has {len(header)}"
                    result.rejected.append(RejectedRecord(name, place, "record", reason))
                    continue
                result.records.append(RawRecord(name, place, dict(zip(header, row, strict=True))))
        except csv.Error as error:
            raise DataError(f"{name}, line {rows.line_num}: not a well-formed table ({error}).") from error
    return result


def read_tsv(stream: IO[bytes], name: str) -> RawRecords:
    """Read a tab-separated table; see :func:`read_csv`."""
    return read_csv(stream, name, delimiter="\t")


def read_parquet(stream: IO[bytes], name: str) -> RawRecords:
    """Read a Parquet table; what is no number, text or truth value is refused where its column is used."""
    try:
        content = stream.read()
        file = pq.ParquetFile(pa.BufferReader(content))
        _refuse_repeated([str(column) for column in file.schema_arrow.names], name)
        rows = list(_parquet_rows(file, name, largest_content(len(content))))
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        # OverflowError: a date beyond those of Python. OSError: what Arrow makes of a broken footer.
        raise DataError(f"{name}: not a Parquet file that can be read ({error}).") from error
    return RawRecords([RawRecord(name, f"record {i}", row) for i, row in enumerate(rows)], [])


def _parquet_rows(file: Any, name: str, limit: int) -> Iterator[dict[str, object]]:
    """Rows of a Parquet file, a few at a time: a value that is stored once may stand in millions of rows.

    Raises
    ------
    DataError
        If the file states, or turns out to hold, more bytes than the limit.
    """
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    stated = sum(group.total_byte_size for group in groups) + _ROW_BYTES * file.metadata.num_rows
    if stated > limit:
        raise more_than_it_can_hold(name, limit)
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    # No value is longer than what its column states.
    longest = max((column.total_uncompressed_size for column in columns), default=0)
    taken = 0
    for batch in file.iter_batches(batch_size=min(max(limit // max(longest, 1), 1), _BATCH_ROWS)):
        plain = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        taken += sum(column.nbytes for column in plain) + _ROW_BYTES * batch.num_rows
        if taken > limit:
            raise more_than_it_can_hold(name, limit)
        yield from cast("list[dict[str, object]]", batch.to_pylist())


def _header(names: list[str], name: str, delimiter: str) -> list[str]:
    """Column names of a table, each once."""
    header = [column.strip() for column in names]
    if not any(header):
        raise DataError(f"{name}: the file has no header line with column names.")
    if len(header) == 1:
        for other, words in _OTHER_DELIMITERS.items():
            if other != delimiter and other in header[0]:
                raise DataError(
                    f"{name}: the header {header[0][:60]!r} is one column; its fields look separated by"
                    f" {words}. Save the table with commas as .csv, or with tabs as .tsv."
                )
    _refuse_repeated(header, name)
    return header


def _refuse_repeated(columns: list[str], name: str) -> None:
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{name}: the header names a column more than once: {repeated}.")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read cells as long as transcripts are (its limit is the process's: put it back)."""
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
