"""Tables in Parquet that Kedro-Viz can show."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from kedro_datasets._typing import TablePreview
from kedro_datasets.pandas import ParquetDataset


class ParquetTableDataset(ParquetDataset):  # pyright: ignore[reportUntypedBaseClass]
    """``pandas.ParquetDataset`` with a preview for every kind of cell.

    The original's preview hands lists and missing integers on as they are, and ``kedro viz build --include-previews``
    then stops at them. Parameters are those of the original.

    Examples
    --------
    ::

        mrna_table:
          type: helix_sae.datasets.tables.ParquetTableDataset
          filepath: data/03_primary/mrna_table.parquet
          versioned: true
    """

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first rows: numbers and texts as they are, lists as text, what is missing as nothing."""
        return table_preview(cast("pd.DataFrame", self.load()), nrows)


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
