"""Readers of the files that users bring: JSON chunks, FASTA, tables, GenBank, and FASTA with GFF3.

Each reader returns :class:`~helix_sae.mrna.records.RawRecords`: records still to be checked, and places that could not
be read as a record. A file that is broken as a whole (not text, cut short, malformed) is a :class:`DataError` that
names it. Paths may be local or any URL that fsspec opens; ``.gz``, ``.bz2`` and ``.xz`` files are decompressed on the
way.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import IO, Any, Literal, cast
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from Bio.Seq import UndefinedSequenceError
from Bio.SeqIO import parse as parse_sequences
from Bio.SeqIO.FastaIO import SimpleFastaParser
from Bio.SeqRecord import SeqRecord

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna.records import FieldError, RawRecord, RawRecords, RejectedRecord, flatten_record

RawFormat = Literal["json", "fasta", "csv", "tsv", "parquet", "genbank"]

CHUNK_NAME = re.compile(r"mRNA_dataset_chunk_\d+\.json(\.(gz|bz2|xz))?$")
"""Names of the chunks in a folder of the JSON format; ``dataset_metadata.json`` beside them is not one."""

SUFFIXES: Mapping[RawFormat, tuple[str, ...]] = {
    "json": (".json",),
    "fasta": (".fa", ".fasta", ".fna", ".ffn"),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "parquet": (".parquet", ".pq"),
    "genbank": (".gb", ".gbk", ".gbff"),
}
_COMPRESSED = (".gz", ".bz2", ".xz")
_LONGEST_FIELD = 2**31 - 1
_LONGEST_NUMBER = 15  # digits of a position; Python refuses to convert thousands of them
_GFF3_TYPES: Mapping[str, str] = {
    "CDS": "cds",
    "UTR5": "utr5",
    "five_prime_UTR": "utr5",
    "UTR3": "utr3",
    "three_prime_UTR": "utr3",
}


def read_sequences(
    path: str,
    format: RawFormat | None = None,
    gff3: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> RawRecords:
    """Read a file, or every file of the format in a folder.

    Parameters
    ----------
    path : str
        A file or a folder; local or an fsspec URL. The files of a folder are read in the order of their names.
    format : str, optional
        By the file's suffix when not given; a folder needs none if it holds JSON chunks.
    gff3 : str, optional
        Annotation of a FASTA file of transcripts, for the coding regions.
    storage_options : mapping, optional
        Arguments of the fsspec file system.

    Raises
    ------
    DataError
        If there is no such file, a folder holds none of the format, or a file is malformed.
    ConfigurationError
        If the format cannot be told from the name, or ``gff3`` goes with another format than FASTA.
    """
    options = dict(storage_options or {})
    with file_errors(path):
        fs, root = cast("tuple[Any, str]", fsspec.core.url_to_fs(path, **options))
        is_folder = fs.isdir(root)
        if not is_folder and not fs.exists(root):
            raise DataError(f"{path}: there is no such file or folder.")
        files = _files_of_folder(fs, root, path, format) if is_folder else [root]
    format = format or ("json" if is_folder else _format_of(path))
    if gff3 is not None and format != "fasta":
        raise ConfigurationError(f"{path}: gff3 goes with FASTA, not with {format}.")
    read = _READERS[format]
    records, rejected = RawRecords([], [])
    for file in files:
        name = path if not is_folder else f"{path.rstrip('/')}/{file.rsplit('/', 1)[-1]}"
        with file_errors(name), open_file(fs, file) as stream:
            part = read(stream, name)
        if not part.records and not part.rejected:
            raise DataError(f"{name}: the file holds no record.")
        records += part.records
        rejected += part.rejected
    if gff3 is not None:
        return _with_coding_regions(RawRecords(records, rejected), gff3, options)
    return RawRecords(records, rejected)


def read_json(stream: IO[bytes], name: str) -> RawRecords:
    """Read one JSON chunk: a list of records (see :func:`~helix_sae.mrna.records.flatten_record`)."""
    try:
        entries = json.loads(read_text(stream, name))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})."
        ) from error
    except (RecursionError, ValueError) as error:
        # ValueError: an integer of more digits than Python converts.
        raise DataError(f"{name}: not JSON that can be read ({error}).") from error
    if not isinstance(entries, list):
        raise DataError(
            f"{name}: the file holds no list of records but {type(entries).__name__}; expected [{{...}}, ...]."
        )
    result = RawRecords([], [])
    for index, entry in enumerate(cast("list[object]", entries)):
        place = f"record {index}"
        if not isinstance(entry, dict):
            result.rejected.append(
                RejectedRecord(name, place, "record", f"is {type(entry).__name__}, not an object")
            )
            continue
        try:
            result.records.append(RawRecord(name, place, flatten_record(cast("dict[str, object]", entry))))
        except FieldError as error:
            result.rejected.append(RejectedRecord(name, place, error.field, error.reason))
    return result


def read_fasta(stream: IO[bytes], name: str) -> RawRecords:
    """Read FASTA; the first word of a title is the ``sequence_id``."""
    text = read_text(stream, name)
    start = text.lstrip()
    if start and not start.startswith(">"):
        raise DataError(f"{name}: not FASTA: the first record does not start with '>'.")
    result = RawRecords([], [])
    for index, (title, sequence) in enumerate(SimpleFastaParser(io.StringIO(text))):
        words = title.split(None, 1)
        if not words:
            result.rejected.append(
                RejectedRecord(name, f"record {index}", "sequence_id", "the title after '>' is empty")
            )
            continue
        result.records.append(
            RawRecord(name, f"record {index}", {"sequence_id": words[0], "sequence": sequence})
        )
    return result


def read_csv(stream: IO[bytes], name: str, delimiter: str = ",") -> RawRecords:
    """Read a table of text with a header line; cells stay text until they are checked."""
    result = RawRecords([], [])
    with _long_fields():
        rows = csv.reader(io.StringIO(read_text(stream, name), newline=""), delimiter=delimiter, strict=True)
        try:
            header = _header(next(rows, []), name)
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
    """Read a Parquet table."""
    try:
        rows = cast("list[dict[str, object]]", pq.read_table(pa.BufferReader(stream.read())).to_pylist())
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{name}: not a Parquet file that can be read ({error}).") from error
    return RawRecords([RawRecord(name, f"record {i}", row) for i, row in enumerate(rows)], [])


def read_genbank(stream: IO[bytes], name: str) -> RawRecords:
    """Read transcripts with their coding regions from GenBank (e.g. RefSeq mRNA).

    A record with one ``CDS`` feature gets its bounds; one whose 3' end is marked as beyond the sequence keeps
    ``cds_end`` missing. A record without one has no coding region. The ``gene`` becomes ``metadata_gene_id``.
    """
    result = RawRecords([], [])
    entries = cast("Iterator[SeqRecord]", parse_sequences(io.StringIO(read_text(stream, name)), "genbank"))
    index = 0
    while True:
        place = f"record {index}"
        try:
            entry = next(entries, None)
        # Biopython's parser raises many kinds of error on a malformed file, none of them its own.
        except Exception as error:
            raise DataError(f"{name}, {place}: not a GenBank record that can be read ({error}).") from error
        if entry is None:
            return result
        try:
            result.records.append(RawRecord(name, place, _genbank_values(entry)))
        except FieldError as error:
            result.rejected.append(RejectedRecord(name, place, error.field, error.reason))
        index += 1


def _genbank_values(entry: SeqRecord) -> dict[str, object]:
    """Fields of one GenBank record."""
    try:
        sequence = str(entry.seq)
    except UndefinedSequenceError as error:
        raise FieldError("sequence", "the record has no sequence, only its length") from error
    values: dict[str, object] = {"sequence_id": entry.id, "sequence": sequence}
    features = cast("list[Any]", entry.features)
    genes = [
        f.qualifiers["gene"][0] for f in features if f.type in ("gene", "CDS") and f.qualifiers.get("gene")
    ]
    if genes:
        values["metadata_gene_id"] = genes[0]
    regions = [feature.location for feature in features if feature.type == "CDS"]
    if len(regions) > 1:
        raise FieldError("CDS", f"the record has {len(regions)} coding regions; a transcript has one")
    if regions:
        values.update(_genbank_bounds(regions[0]))
    return values


def _genbank_bounds(region: Any) -> dict[str, object]:
    """Bounds of a CDS feature on the forward strand, 0-based half-open."""
    if region is None:
        raise FieldError("CDS", "its location cannot be read")
    if region.strand == -1:
        raise FieldError("CDS", "lies on the reverse strand: the record is no transcript (mRNA)")
    if len(region.parts) > 1:
        raise FieldError(
            "CDS", f"is in {len(region.parts)} pieces ({region}): introns, or a shift of the reading frame"
        )
    if type(region.start).__name__ == "BeforePosition":
        raise FieldError("CDS", "starts before the record: its reading frame is not known")
    beyond = type(region.end).__name__ == "AfterPosition"
    return {"cds_start": int(region.start), "cds_end": None if beyond else int(region.end)}


def read_gff3_coding_regions(stream: IO[bytes], name: str) -> dict[str, tuple[int, int]]:
    """Coding region of each sequence of a GFF3 file whose coordinates are those of the transcripts themselves.

    Features of the types ``CDS``, ``UTR5`` or ``five_prime_UTR``, ``UTR3`` or ``three_prime_UTR`` are read; a sequence
    with both UTRs and no ``CDS`` codes in between. Other features are left out.

    Returns
    -------
    dict
        Sequence id -> (start, end), 0-based half-open.

    Raises
    ------
    DataError
        If a line is malformed, the features of a sequence are on the reverse strand or the coding ones not adjacent (a
        genome's annotation, not the transcripts'), or a UTR does not end where the coding region begins.
    """
    parts: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for number, line in enumerate(read_text(stream, name).splitlines(), start=1):
        if line.startswith("##FASTA"):
            break
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        place = f"{name}, line {number}"
        if len(fields) != 9:
            raise DataError(f"{place}: {len(fields)} fields where GFF3 has 9, separated by tabs.")
        kind = _GFF3_TYPES.get(fields[2])
        if kind is None:
            continue
        if fields[6] == "-":
            raise DataError(
                f"{place}: a {fields[2]} on the reverse strand; coordinates must be those of the transcripts in the "
                "FASTA file, not of a genome."
            )
        # GFF3 writes reserved letters of a name in percent notation.
        of_sequence = parts.setdefault(unquote(fields[0]), defaultdict(list))
        of_sequence[kind].append(_gff3_range(fields[3], fields[4], place))
    regions = {sequence_id: _coding_region(found, sequence_id, name) for sequence_id, found in parts.items()}
    return {sequence_id: region for sequence_id, region in regions.items() if region is not None}


def _gff3_range(start: str, end: str, place: str) -> tuple[int, int]:
    """Both bounds of a feature, 0-based half-open."""
    digits = all(
        bound.isascii() and bound.isdigit() and len(bound) <= _LONGEST_NUMBER for bound in (start, end)
    )
    if not digits or not 1 <= int(start) <= int(end):
        raise DataError(f"{place}: {start[:40]!r} to {end[:40]!r} is no range of positions counted from 1.")
    return int(start) - 1, int(end)


def _coding_region(
    found: Mapping[str, list[tuple[int, int]]], sequence_id: str, name: str
) -> tuple[int, int] | None:
    """Coding region of a sequence from its features; None where they do not say."""
    spans = {kind: _adjacent(ranges, sequence_id, kind, name) for kind, ranges in found.items()}
    before, coding, after = (spans.get(kind) for kind in ("utr5", "cds", "utr3"))
    if coding is None and before is not None and after is not None and before[1] < after[0]:
        return before[1], after[0]
    if coding is None:
        return None
    for utr, bound, edge in ((before, 1, coding[0]), (after, 0, coding[1])):
        if utr is not None and utr[bound] != edge:
            raise DataError(
                f"{name}, sequence {sequence_id}: the UTR [{utr[0]}, {utr[1]}) is not beside the coding region "
                f"[{coding[0]}, {coding[1]}); correct the one or the other."
            )
    return coding


def _adjacent(ranges: list[tuple[int, int]], sequence_id: str, kind: str, name: str) -> tuple[int, int]:
    ordered = sorted(ranges)
    for (_, end), (start, _) in pairwise(ordered):
        if start != end:
            raise DataError(
                f"{name}, sequence {sequence_id}: its {'coding' if kind == 'cds' else 'UTR'} features are not adjacent "
                f"(one ends at {end}, the next starts at {start + 1}); coordinates must be those of the spliced "
                "transcripts."
            )
    return ordered[0][0], ordered[-1][1]


def _with_coding_regions(raw: RawRecords, gff3: str, options: dict[str, Any]) -> RawRecords:
    """Add the coding regions of a GFF3 file to the records of a FASTA file."""
    with file_errors(gff3):
        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(gff3, **options))
        with open_file(fs, path) as stream:
            regions = read_gff3_coding_regions(stream, gff3)
    absent = sorted(set(regions) - {str(record.values["sequence_id"]) for record in raw.records})
    if absent:
        fasta = raw.records[0].file if raw.records else "the FASTA file"
        raise DataError(
            f"{gff3}: {len(absent)} of {len(regions)} annotated sequences are not in {fasta}; the first: {absent[:5]}."
        )
    records: list[RawRecord] = []
    for record in raw.records:
        bounds = regions.get(str(record.values["sequence_id"]))
        added = {} if bounds is None else {"cds_start": bounds[0], "cds_end": bounds[1]}
        records.append(record._replace(values={**record.values, **added}))
    return RawRecords(records, raw.rejected)


_READERS: Mapping[RawFormat, Callable[[IO[bytes], str], RawRecords]] = {
    "json": read_json,
    "fasta": read_fasta,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
    "genbank": read_genbank,
}


def _files_of_folder(fs: Any, root: str, path: str, format: RawFormat | None) -> list[str]:
    """Files of the format in a folder, by name."""
    files = sorted(
        entry["name"]
        for entry in cast("list[dict[str, Any]]", fs.ls(root, detail=True))
        if entry["type"] == "file"
    )
    if format in (None, "json"):
        chosen = [file for file in files if CHUNK_NAME.search(file.rsplit("/", 1)[-1])]
        wanted = "mRNA_dataset_chunk_0000.json, mRNA_dataset_chunk_0001.json..."
    else:
        chosen = [file for file in files if _without_compression(file).endswith(SUFFIXES[format])]
        wanted = f"a name that ends in {' or '.join(SUFFIXES[format])}"
    if not chosen:
        raise DataError(
            f"{path}: no file of this folder is named as expected ({wanted}). Give the format if it is another."
        )
    return chosen


def _format_of(path: str) -> RawFormat:
    name = _without_compression(path)
    for format, suffixes in SUFFIXES.items():
        if name.endswith(suffixes):
            return format
    raise ConfigurationError(
        f"{path}: the format cannot be told from the name; give one of {', '.join(SUFFIXES)}."
    )


def _without_compression(path: str) -> str:
    name = path.lower()
    return next((name.removesuffix(suffix) for suffix in _COMPRESSED if name.endswith(suffix)), name)


def open_file(fs: Any, path: str) -> IO[bytes]:
    """Open a file for reading; a compressed one, by its name, is decompressed on the way."""
    return cast("IO[bytes]", fs.open(path, "rb", compression="infer"))


@contextmanager
def file_errors(name: str) -> Iterator[None]:
    """Turn what the file system and the decompressors raise into an error that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{name}: the file cannot be read ({error}).") from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read cells as long as the longest transcripts (its limit is the process's: put it back)."""
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def read_text(stream: IO[bytes], name: str) -> str:
    """The stream as text, without a byte-order mark."""
    data = stream.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, byte {error.start}: not UTF-8 text ({error.reason}). Save the file as UTF-8."
        ) from error


def _header(names: list[str], name: str) -> list[str]:
    """Column names of a table, each once."""
    header = [column.strip() for column in names]
    if not any(header):
        raise DataError(f"{name}: the file has no header line with column names.")
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"{name}: the header names a column more than once: {repeated}.")
    return header
