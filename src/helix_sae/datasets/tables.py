"""Tables in Parquet and CSV that are there whole or not at all, and that Kedro-Viz can show."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
from kedro_datasets._typing import TablePreview
from pandas.errors import EmptyDataError

from helix_sae.datasets.files import FileDataset
from helix_sae.left_out import left_out_of
from helix_sae.tables import SCHEMAS

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"''*[=+\-@\t\r]")


class _TableDataset(FileDataset[pd.DataFrame, pd.DataFrame]):
    """A table, and its first rows for Kedro-Viz."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first rows: numbers and texts as they are, lists as text, what is missing as nothing."""
        return table_preview(self.load(), nrows)


class ParquetTableDataset(_TableDataset):
    """A table in Parquet; arguments are those of pandas' ``to_parquet`` and ``read_parquet``, and one more.

    optional : bool
        Whether a file that is not there is read as a table without columns.

    Examples
    --------
    ::

        mrna_table:
          type: helix_sae.datasets.tables.ParquetTableDataset
          filepath: data/03_primary/mrna_table.parquet
          versioned: true
    """

    def __init__(self, *, optional: bool = False, **file: Any) -> None:
        super().__init__(**file)
        self._optional = optional

    def load(self) -> pd.DataFrame:
        """Read the table; one without columns where there is none and that is allowed."""
        return pd.DataFrame() if self._optional and not super()._exists() else super().load()

    def _exists(self) -> bool:
        return self._optional or super()._exists()

    def _encode(self, data: pd.DataFrame) -> bytes:
        stream = io.BytesIO()
        data.to_parquet(stream, **self._save_args)
        return stream.getvalue()

    def _decode(self, content: bytes) -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(content), **self._load_args)


class CsvTableDataset(_TableDataset):
    """A table in CSV without its index; arguments are those of pandas' ``to_csv`` and ``read_csv``.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return would be run as a formula
    by the programs that people open CSV with. It is written with an apostrophe before it, as these programs
    expect, which is taken away again when the table is read here. Numbers are not touched. A table that
    :mod:`helix_sae.tables` has a schema of is checked before it is written.

    Examples
    --------
    ::

        sae_metrics:
          type: helix_sae.datasets.tables.CsvTableDataset
          filepath: data/08_reporting/sae_metrics.csv
          versioned: true
    """

    def _encode(self, data: pd.DataFrame) -> bytes:
        name = self._filepath.stem
        if name in SCHEMAS and len(data.columns) and left_out_of(data) is None:
            SCHEMAS[name].check(data, name)
        escaped = _with_texts(data, lambda text: f"'{text}" if _FORMULA.match(text) else text)
        return cast("str", escaped.to_csv(**{"index": False, **self._save_args})).encode()

    def _decode(self, content: bytes) -> pd.DataFrame:
        try:
            table = pd.read_csv(io.BytesIO(content), **self._load_args)
        except EmptyDataError:
            return pd.DataFrame()  # a table without columns
        return _with_texts(table, lambda text: text[1:] if _ESCAPED.match(text) else text)


def _with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The same table with its texts changed, column names among them."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    columns = {
        place: table.iloc[:, place].map(changed)
        for place, dtype in enumerate(table.dtypes)
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype))
    }
    made = table.copy(deep=False)
    for place, column in columns.items():
        made.isetitem(place, column)
    made.columns = [changed(name) for name in table.columns]
    return made


def table_preview(table: pd.DataFrame, nrows: int) -> TablePreview:
    """First rows of a table as JSON values, in the form that Kedro-Viz shows."""
    head = table.head(nrows)
    columns = [[_shown(value) for value in head[name].tolist()] for name in head]
    return TablePreview(
        {
            "index": [_shown(label) for label in head.index.tolist()],
            "columns": [str(name) for name in head],
            "data": [list(row) for row in zip(*columns, strict=True)],
        }
    )


def _shown(value: Any) -> str | float | bool | None:
    """A cell as JSON knows it."""
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(str, cast("list[Any]", value)))
    if value is None or pd.isna(value):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
