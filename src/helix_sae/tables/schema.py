"""What a table holds: its columns with types, units, bounds and meaning, and a check that a table is as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from helix_sae.errors import DataError

Kind = Literal["number", "count", "text", "flag"]

_IS: dict[Kind, Callable[[Any], bool]] = {
    "number": lambda values: bool(
        pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    ),
    "count": lambda values: bool(
        pd.api.types.is_numeric_dtype(values)
        and not pd.api.types.is_bool_dtype(values)
        and (values % 1 == 0).all()
    ),
    "text": lambda values: all(isinstance(value, str) for value in values),
    "flag": lambda values: all(isinstance(value, bool | np.bool_) for value in values),
}


ROUNDING = 1e-9
"""By how much a bound may be missed: sums of many numbers round."""


class Column(BaseModel):
    """One column.

    Attributes
    ----------
    kind : {"number", "count", "text", "flag"}
        A ``count`` is a whole number.
    meaning : str
        What a value says, in words.
    unit : str, optional
        Of a number; a share has none and lies within 0 and 1.
    low, high : float, optional
        Bounds, themselves allowed.
    nullable : bool
        Whether a value may be missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    meaning: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    nullable: bool = False


class Table(BaseModel):
    """One table of the catalog.

    Attributes
    ----------
    meaning : str
        What a row is.
    columns : dict of name to Column
        Those that readers of the table rely on; a table may have more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    meaning: str
    columns: dict[str, Column] = Field(min_length=1)

    def check(self, table: pd.DataFrame, name: str) -> None:
        """Make sure that a table is as the schema says.

        Raises
        ------
        DataError
            Naming the table and all columns that are missing or hold something else, each with a value that
            does not fit.
        """
        problems = [
            said for column, schema in self.columns.items() if (said := _problem(table, column, schema))
        ]
        if problems:
            raise DataError(
                f"The table {name} is not as its schema says:\n  "
                + "\n  ".join(problems)
                + "\nThis is a mistake of the node that made it, or of a schema that was not changed along. "
                "See helix_sae.tables."
            )

    def example(self, n_rows: int) -> pd.DataFrame:
        """A table that the schema allows, of made-up values, for tests."""
        rng = np.random.default_rng(0)
        made: dict[str, Any] = {}
        for name, column in self.columns.items():
            low = 0.0 if column.low is None else column.low
            high = low + 1000.0 if column.high is None else column.high
            made[name] = {
                "number": lambda a=low, b=high: rng.uniform(a, b, n_rows),
                "count": lambda a=low, b=high: rng.integers(int(a), int(b) + 1, n_rows),
                "text": lambda c=name: [f"{c} {i}" for i in range(n_rows)],
                "flag": lambda: rng.integers(0, 2, n_rows).astype(bool),
            }[column.kind]()
        return pd.DataFrame(made)


def _problem(table: pd.DataFrame, name: str, column: Column) -> str | None:
    """What is wrong with a column; None if nothing is."""
    if name not in table:
        return f"{name} is missing ({column.meaning})"
    missing = table[name].isna()
    values = table.loc[~missing, name]
    if missing.any() and not column.nullable:
        return f"{name}: {int(missing.sum())} values are missing, the first in row {int(np.argmax(missing))}"
    if values.empty:
        return None
    if not _IS[column.kind](values):
        return f"{name} is no {column.kind}: {values.tolist()[0]!r}"
    if column.low is not None and (values < column.low - ROUNDING).any():
        return f"{name}: {values.min()} is below {column.low:g}"
    if column.high is not None and (values > column.high + ROUNDING).any():
        return f"{name}: {values.max()} is above {column.high:g}"
    return None
