"""Readers of the files that users bring: JSON chunks, FASTA, tables, GenBank, and FASTA with GFF3.

Each reader returns :class:`~helix_sae.mrna.records.RawRecords`: records still to be checked, and places that
could not be read as a record. A file that is broken as a whole (not text, cut short, malformed) is a
:class:`DataError` that names it. Paths may be local or any URL that fsspec opens; ``.gz``, ``.bz2`` and
``.xz`` files are decompressed on the way. What each format can get wrong, and what is done about it, is in
``docs/formats.md``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal, cast

import fsspec

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna.readers.chunks import read_json
from helix_sae.mrna.readers.fasta import read_fasta
from helix_sae.mrna.readers.files import (
    file_errors,
    files_of_folder,
    has_suffix,
    open_file,
    read_lines,
    require_file,
)
from helix_sae.mrna.readers.genbank import read_genbank
from helix_sae.mrna.readers.gff3 import CodingRegions, read_gff3_coding_regions
from helix_sae.mrna.readers.tables import read_csv, read_parquet, read_tsv
from helix_sae.mrna.records import RawRecords, RejectedRecord

__all__ = [
    "CHUNK_NAME",
    "SUFFIXES",
    "CodingRegions",
    "RawFormat",
    "file_errors",
    "open_file",
    "read_csv",
    "read_fasta",
    "read_genbank",
    "read_gff3_coding_regions",
    "read_json",
    "read_lines",
    "read_parquet",
    "read_sequences",
    "read_tsv",
    "require_file",
]

_log = logging.getLogger(__name__)

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
_HINTS: Mapping[tuple[str, ...], str] = {
    (
        ".gff3",
        ".gff",
        ".gtf",
    ): "an annotation goes with the FASTA file of its transcripts: name that one, and this as `gff3`",
    (".fastq", ".fq"): "reads of a sequencer are not transcripts; give FASTA",
    (".xlsx", ".xls", ".ods"): "save the sheet as CSV",
    (".jsonl", ".ndjson"): "write the records as one JSON list, as .json",
    (".zip", ".zst", ".tar", ".tgz", ".7z"): "unpack it, or compress the file with gzip, bzip2 or xz",
}

_READERS: Mapping[RawFormat, Callable[[IO[bytes], str], RawRecords]] = {
    "json": read_json,
    "fasta": read_fasta,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
    "genbank": read_genbank,
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
        A file or a folder; local or an fsspec URL. The files of a folder are read in the order of their
        names, and the log names what else lies there.
    format : str, optional
        By the file's suffix when not given; of a folder by what it holds, JSON chunks first.
    gff3 : str, optional
        Annotation of a FASTA file of transcripts, for the coding regions.
    storage_options : mapping, optional
        Arguments of the fsspec file system.

    Raises
    ------
    DataError
        If there is no such file, it is not a regular one, a folder holds none of the format, or a file is
        malformed.
    ConfigurationError
        If the format cannot be told from the name, a folder holds several, or ``gff3`` goes with another one
        than FASTA.
    """
    options = dict(storage_options or {})
    with file_errors(path):
        fs, root = cast("tuple[Any, str]", fsspec.core.url_to_fs(path, **options))
        is_folder = fs.isdir(root)
        if is_folder:
            format = format or _format_of_folder(fs, root, path)
            files = _files_of_folder(fs, root, path, format)
        else:
            require_file(fs, root, path, "file or folder")
            format, files = format or _format_of(path), [root]
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


def _with_coding_regions(raw: RawRecords, gff3: str, options: dict[str, Any]) -> RawRecords:
    """Add the coding regions of a GFF3 file to the records of a FASTA file."""
    with file_errors(gff3):
        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(gff3, **options))
        require_file(fs, path, gff3)
        with open_file(fs, path) as stream:
            found = read_gff3_coding_regions(stream, gff3)
    annotated = {*found.regions, *found.refused}
    absent = sorted(annotated - {str(record.values["sequence_id"]) for record in raw.records})
    if absent:
        fasta = raw.records[0].file if raw.records else "the FASTA file"
        told = f"{gff3}: {len(absent)} of {len(annotated)} annotated sequences are not in {fasta}; the first:"
        if len(absent) == len(annotated):
            raise DataError(
                f"{told} {absent[:5]}. The first column has to hold the first word of a FASTA title, and"
                " coordinates those of that transcript."
            )
        _log.warning("%s %s. They are not read.", told, absent[:5])  # the FASTA file may be a selection
    result = RawRecords([], list(raw.rejected))
    without = 0
    for record in raw.records:
        sequence_id = str(record.values["sequence_id"])
        if sequence_id in found.refused:
            reason = f"{sequence_id}: {found.refused[sequence_id]}"
            result.rejected.append(RejectedRecord(record.file, record.place, "cds_start", reason))
            continue
        bounds = found.regions.get(sequence_id)
        without += bounds is None
        added = {} if bounds is None else {"cds_start": bounds[0], "cds_end": bounds[1]}
        result.records.append(record._replace(values={**record.values, **added}))
    if without:
        _log.warning("%s: says no coding region of %d of %d sequences", gff3, without, len(raw.records))
    return result


def _format_of_folder(fs: Any, root: str, path: str) -> RawFormat:
    """The one format of which a folder holds files; chunks of JSON go before others."""
    names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(root, detail=False)]
    if any(CHUNK_NAME.fullmatch(name) for name in names):
        return "json"
    found: list[RawFormat] = [
        format
        for format, suffixes in SUFFIXES.items()
        if format != "json" and any(has_suffix(name, suffixes) for name in names)
    ]
    if len(found) > 1:
        raise ConfigurationError(
            f"{path}: the folder holds files of several formats ({', '.join(found)}); name one file, or leave"
            " one format."
        )
    return found[0] if found else "json"


def _files_of_folder(fs: Any, root: str, path: str, format: RawFormat) -> list[str]:
    """Files of the format in a folder, by name."""
    if format == "json":
        wanted = "mRNA_dataset_chunk_0000.json, mRNA_dataset_chunk_0001.json..."
        chosen = files_of_folder(
            fs, root, path, lambda name: CHUNK_NAME.fullmatch(name) is not None, known="dataset_metadata.json"
        )
    else:
        wanted = f"a name that ends in {' or '.join(SUFFIXES[format])}"
        chosen = files_of_folder(fs, root, path, lambda name: has_suffix(name, SUFFIXES[format]))
    if not chosen:
        raise DataError(
            f"{path}: no file of this folder is named as expected ({wanted}). Rename the files, or name one"
            " of them."
        )
    return chosen


def _format_of(path: str) -> RawFormat:
    for format, suffixes in SUFFIXES.items():
        if has_suffix(path, suffixes):
            return format
    hint = next((f" ({words})" for suffixes, words in _HINTS.items() if has_suffix(path, suffixes)), "")
    known = ", ".join(f"{format} ({' '.join(suffixes)})" for format, suffixes in SUFFIXES.items())
    raise ConfigurationError(
        f"{path}: the format cannot be told from the name{hint}. Files that are read: {known}."
    )
