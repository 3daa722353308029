"""Files that users bring, and the demo chunks in the original JSON schema."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, cast

import pandas as pd
from kedro.io.core import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from helix_sae.datasets.tables import table_preview
from helix_sae.mrna.intervals import interval_table, read_intervals
from helix_sae.mrna.readers import CHUNK_NAME, RawFormat, read_sequences, require_file
from helix_sae.mrna.records import RawRecords
from helix_sae.storage import digest_of, open_filesystem, sha256, storage_errors, write_file

CHUNK_RECORDS = 5_000


class SequenceFilesDataset(AbstractDataset[Sequence[Mapping[str, Any]], RawRecords]):
    """Raw sequences: a file, or a folder of files of one format.

    Loads :class:`~helix_sae.mrna.records.RawRecords`. Saves records of the JSON schema as
    ``mRNA_dataset_chunk_%04d.json`` into a folder (the ``json`` format only).

    Parameters
    ----------
    filepath : str or None
        A file or folder; a local path or any fsspec URL. None for an input that may be left out: it has no
        records.
    format : {"json", "fasta", "csv", "tsv", "parquet", "genbank"}, optional
        By the file's suffix when not given.
    gff3 : str, optional
        Coding regions of the transcripts of a FASTA file: the name of a file beside it, or a path or URL.
    credentials, fs_args : mapping, optional
        Of the fsspec file system.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.

    Examples
    --------
    ::

        raw_sequences:
          type: helix_sae.datasets.raw.SequenceFilesDataset
          filepath: data/01_raw/demo
          format: json
    """

    given_by_user: ClassVar[bool] = True
    """Where it is not there, no pipeline makes it: the path is wrong."""

    def __init__(
        self,
        *,
        filepath: str | None,
        format: RawFormat | None = None,
        gff3: str | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = filepath
        self._format: RawFormat | None = format
        self._gff3 = None if gff3 is None or filepath is None else _beside(filepath, gff3)
        self._storage_options = {**(credentials or {}), **(fs_args or {})}
        self.metadata = metadata

    def load(self) -> RawRecords:
        """Read the records, not yet checked."""
        if self._filepath is None:
            return RawRecords([], [])
        return read_sequences(self._filepath, self._format, self._gff3, self._storage_options)

    def save(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Write records of the JSON schema as chunks, and remove chunks of an earlier, longer set."""
        if self._format != "json":
            raise DatasetError(
                f"{self._filepath}: only chunks in the format json can be written, not {self._format}."
            )
        if self._filepath is None:
            raise DatasetError("Nothing can be written without a `filepath`.")
        fs, folder = open_filesystem(self._filepath, self._storage_options)
        written: set[str] = set()
        for number, start in enumerate(range(0, len(data), CHUNK_RECORDS)):
            name = f"mRNA_dataset_chunk_{number:04d}.json"
            content = json.dumps(list(data[start : start + CHUNK_RECORDS]), indent=1, allow_nan=False)
            write_file(fs, f"{folder}/{name}", content.encode())
            written.add(name)
        with storage_errors(folder, "cleared of earlier chunks"):
            for path in cast("list[str]", fs.ls(folder, detail=False)) if fs.exists(folder) else []:
                name = path.rsplit("/", 1)[-1]
                if CHUNK_NAME.fullmatch(name) and name not in written:
                    fs.rm_file(path)

    def _exists(self) -> bool:
        if self._filepath is None:
            return True
        fs, path = open_filesystem(self._filepath, self._storage_options)
        return bool(fs.exists(path))

    def identify(self) -> dict[str, Any]:
        """What the provenance of everything made from these files says of them; nothing where there are none."""
        if self._filepath is None:
            return {}
        files = [self._filepath, *([self._gff3] if self._gff3 else [])]
        digests = [_digest(file, self._storage_options) for file in files]
        whole = digests[0] if len(digests) == 1 else sha256("".join(digests).encode())
        return {"url": self._filepath, "gff3": self._gff3, "sha256": whole}

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "format": self._format, "gff3": self._gff3}

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first records as they were read."""
        records = list(islice(self.load().records, nrows))
        columns = list(dict.fromkeys(name for record in records for name in record.values))
        data = [[str(record.values.get(name, "")) for name in columns] for record in records]
        return TablePreview({"index": list(range(len(data))), "columns": columns, "data": data})


class UserTableDataset(AbstractDataset[None, pd.DataFrame]):
    """A table that the user may bring; read only, and empty where no file is named. A subclass says how it is read.

    Parameters
    ----------
    filepath : str, optional
        A local path or any fsspec URL, plain or compressed.
    credentials, fs_args : mapping, optional
        Of the fsspec file system.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.
    """

    given_by_user: ClassVar[bool] = True
    """Where it is not there, no pipeline makes it: the path is wrong."""

    holds: ClassVar[str]
    """What its rows are, in messages."""

    def __init__(
        self,
        *,
        filepath: str | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = filepath
        self._storage_options = {**(credentials or {}), **(fs_args or {})}
        self.metadata = metadata

    @abstractmethod
    def _read(self, path: str, storage_options: Mapping[str, Any]) -> pd.DataFrame:
        """The table of a file."""

    @abstractmethod
    def _empty(self) -> pd.DataFrame:
        """The table where no file is named."""

    def load(self) -> pd.DataFrame:
        """Read the table."""
        return self._empty() if self._filepath is None else self._read(self._filepath, self._storage_options)

    def save(self, data: None) -> None:
        """Refuse: the table is the user's."""
        raise DatasetError(f"{self._filepath}: {self.holds} are read and never written.")

    def _exists(self) -> bool:
        if self._filepath is None:
            return True
        fs, path = open_filesystem(self._filepath, self._storage_options)
        return bool(fs.exists(path))

    def identify(self) -> dict[str, Any]:
        """What the provenance of everything made from this file says of it; nothing where there is none."""
        if self._filepath is None:
            return {}
        return {
            "url": self._filepath,
            "sha256": _digest(self._filepath, self._storage_options),
        }

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first rows."""
        return table_preview(self.load(), nrows)


class IntervalsDataset(UserTableDataset):
    """BED-like table of intervals that become concepts: ``sequence_id``, ``start``, ``end``, ``name``.

    Examples
    --------
    ::

        concept_intervals:
          type: helix_sae.datasets.raw.IntervalsDataset
          filepath: data/01_raw/clip_sites.bed.gz
    """

    holds = "intervals"

    def _read(self, path: str, storage_options: Mapping[str, Any]) -> pd.DataFrame:
        return read_intervals(path, storage_options)

    def _empty(self) -> pd.DataFrame:
        return interval_table()


def _digest(filepath: str, storage_options: dict[str, Any]) -> str:
    """SHA-256 of a user's file or folder, once it is sure that it can be read to an end."""
    fs, path = open_filesystem(filepath, storage_options)
    if not fs.isdir(path):
        require_file(fs, path, filepath)
    return digest_of(fs, path)


def _beside(filepath: str, name: str) -> str:
    """Full path of a file: a bare name lies beside the other file, anything with a folder is a path of its own."""
    folder = filepath.rpartition("/")[0]
    return name if not folder or "/" in name else f"{folder}/{name}"
