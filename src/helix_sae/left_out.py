"""Parts of a run that could not be done: named, with the reason, and handed on in place of their results.

A node whose part cannot be done gives :class:`LeftOut` for each of its outputs. It is kept like any result:
as a table of one row, a figure or a document that says so, so that a later run, and a person who opens the
file, learns the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pandas as pd

LEFT_OUT, REASON = "left_out", "reason"
"""Columns of the table, and keys of the document, that stand for a part that was left out."""


NOT_MADE = "has not been made yet"
"""In the reason of what no run has made, as nobody asked for its pipeline."""

TOLERANT = "tolerant"
"""Tag of nodes that make do without inputs that were never made: each gets a :class:`LeftOut` in its
place."""


@dataclass(frozen=True)
class LeftOut:
    """A part that was not done.

    Attributes
    ----------
    part : str
        What was left out, in words.
    reason : str
        Why, and what to give so that it can be done.
    """

    part: str
    reason: str

    def table(self) -> pd.DataFrame:
        """The same as a table of one row."""
        import pandas as pd  # noqa: PLC0415 - heavy, and this module is read by every command

        return pd.DataFrame({LEFT_OUT: [self.part], REASON: [self.reason]})

    def document(self) -> dict[str, str]:
        """The same as JSON."""
        return {LEFT_OUT: self.part, REASON: self.reason}


def left_out_of(value: object) -> LeftOut | None:
    """The part that a value says was left out; None if it is a result."""
    if isinstance(value, LeftOut):
        return value
    columns = getattr(value, "columns", None)
    if columns is not None and list(columns) == [LEFT_OUT, REASON] and len(cast("Any", value)) == 1:
        row = cast("Any", value).iloc[0]
        return LeftOut(str(row[LEFT_OUT]), str(row[REASON]))
    if isinstance(value, Mapping) and set(cast("Mapping[str, Any]", value)) == {LEFT_OUT, REASON}:
        entries = cast("Mapping[str, Any]", value)
        return LeftOut(str(entries[LEFT_OUT]), str(entries[REASON]))
    return None
