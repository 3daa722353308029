"""Labels that people gave to features: a CSV table of the user's own, which the atlas shows and exports."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import IO, Any, cast

import fsspec
import pandas as pd

from helix_sae.datasets.raw import UserTableDataset
from helix_sae.errors import DataError
from helix_sae.mrna.readers import file_errors, open_file, read_lines, require_file

LABEL_COLUMNS = ("feature", "label", "note", "author", "date")
"""Of a table of labels; the first two have to be there."""

_FORMULA = ("=", "+", "-", "@", "\t")


def label_table(rows: list[dict[str, str]] | None = None) -> pd.DataFrame:
    """A table of labels, empty without rows."""
    return pd.DataFrame(rows or [], columns=list(LABEL_COLUMNS), dtype=object).fillna("")


def read_labels(path: str, storage_options: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Read a CSV file of labels, plain or compressed, local or at any fsspec URL.

    Parameters
    ----------
    path : str
    storage_options : mapping, optional
        Arguments of the fsspec file system.

    Returns
    -------
    DataFrame
        :data:`LABEL_COLUMNS`, all text, a row a label; a feature may have several.

    Raises
    ------
    DataError
        If there is no such file, a column is missing, or a row has no feature or no label; names the file and
        the line.
    """
    with file_errors(path):
        fs, root = cast("tuple[Any, str]", fsspec.core.url_to_fs(path, **dict(storage_options or {})))
        require_file(fs, root, path)
        with open_file(fs, root) as stream:
            return parse_labels(stream, path)


def parse_labels(stream: IO[bytes], name: str) -> pd.DataFrame:
    """Parse the lines of a CSV file of labels; see :func:`read_labels`."""
    reader = csv.reader(read_lines(stream, name), strict=True)
    rows: list[dict[str, str]] = []
    try:
        titles = [title.strip().lower() for title in next(reader, [])]
        missing = [title for title in LABEL_COLUMNS[:2] if title not in titles]
        if missing:
            raise DataError(
                f"{name}: no column {' and '.join(map(repr, missing))}. A table of labels is a CSV file whose"
                f" first line is {','.join(LABEL_COLUMNS)}; the atlas exports such a file."
            )
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            row = {title: _plain(field) for title, field in zip(titles, fields, strict=False)}
            if not (row.get("feature") and row.get("label")):
                raise DataError(
                    f"{name}, line {reader.line_num}: a label needs a feature, such as L4.mixer.466, and a"
                    " text."
                )
            rows.append({title: row.get(title, "") for title in LABEL_COLUMNS})
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: not CSV ({error}).") from error
    return label_table(rows)


def _plain(field: str) -> str:
    """A field without the mark that keeps spreadsheets from taking a text for a formula."""
    text = field.strip()
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


class LabelsDataset(UserTableDataset):
    """CSV table of labels of features; read only, and empty where no file is named.

    Examples
    --------
    ::

        feature_labels:
          type: helix_sae.datasets.labels.LabelsDataset
          filepath: labels.csv
    """

    holds = "labels"

    def _read(self, path: str, storage_options: Mapping[str, Any]) -> pd.DataFrame:
        return read_labels(path, storage_options)

    def _empty(self) -> pd.DataFrame:
        return label_table()
