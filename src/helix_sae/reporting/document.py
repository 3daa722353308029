"""What a report is made of: sections of statements, tables and figures, each with its numbers for machines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from helix_sae.reporting.drawings import Whisker, png_uri

Tone = Literal["finding", "weak", "absent"]
"""A result; a result that is weak or against what was hoped for, which is said as plainly; something not
done."""

CellKind = Literal["text", "number", "code", "whisker", "yes"]


class Statement(NamedTuple):
    """One sentence or two about a result.

    Attributes
    ----------
    text : str
        Plain text.
    tone : Tone
    headline : bool
        Whether it also stands in the summary at the head of the report and on the terminal.
    """

    text: str
    tone: Tone = "finding"
    headline: bool = False


class Tile(NamedTuple):
    """A number that stands at the head of the report."""

    label: str
    value: str
    note: str = ""
    weak: bool = False


class Column(NamedTuple):
    """Heading of a column, and how its cells are set.

    A ``whisker`` cell is a :class:`~helix_sae.reporting.drawings.Whisker` or None, a ``yes`` cell True, False
    or None; all others are text.
    """

    title: str
    kind: CellKind = "text"


class ReportTable(NamedTuple):
    """A table with a caption; ``rows`` hold one cell a column."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | bool | Whisker | None]]


class ReportFigure(NamedTuple):
    """A figure, embedded.

    Attributes
    ----------
    name : str
        Anchor, unique within the report.
    title, caption : str
    uri : str
        ``data:image/png;base64,...``
    width : float
        In inches as drawn; the page shows it at about this size.
    words : tuple of str
        What is written in it, once each: a picture cannot be clicked, so the features among them are linked
        below it.
    """

    name: str
    title: str
    caption: str
    uri: str
    width: float
    words: tuple[str, ...] = ()


class Prose(NamedTuple):
    """A paragraph that explains how to read what follows."""

    text: str


Block = Prose | ReportTable | ReportFigure


class Section(NamedTuple):
    """One part of the report.

    Attributes
    ----------
    key : str
        Of its numbers in the run summary, and its anchor.
    title : str
    statements : sequence of Statement
    blocks : sequence of Block
        What follows the statements, in order.
    numbers : mapping
        The same results for machines.
    tiles : sequence of Tile
    warnings : sequence of str
        What a reader has to know before trusting the section.
    """

    key: str
    title: str
    statements: Sequence[Statement]
    blocks: Sequence[Block] = ()
    numbers: Mapping[str, Any] = {}
    tiles: Sequence[Tile] = ()
    warnings: Sequence[str] = ()


def not_run(key: str, title: str, reason: str) -> Section:
    """A section that says that its part was not run, and why."""
    return Section(key, title, [Statement(reason, "absent")], numbers={"run": False, "reason": reason})


def picture(name: str, title: str, caption: str, figure: Figure) -> ReportFigure:
    """Embed a figure."""
    uri = png_uri(figure)  # draws it: before, ticks have no labels
    written = (part.get_text() for part in figure.findobj(Text))
    words = tuple(dict.fromkeys(word for text in written for word in text.split()))
    return ReportFigure(name, title, caption, uri, float(figure.get_figwidth()), words)


def is_empty(table: pd.DataFrame | None) -> bool:
    """Whether there is nothing in a table, or no table."""
    return table is None or table.empty


def truth(values: pd.Series) -> np.ndarray:
    """A column of yes and no as booleans; what is missing counts as no."""
    return values.map({True: True, False: False, "True": True, "False": False}).eq(True).to_numpy(dtype=bool)


def plain(value: Any) -> Any:
    """The same as JSON values: arrays and numpy scalars as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in cast("list[dict[Any, Any]]", value.to_dict("records"))]
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return plain(value.item())
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(cast("int", value))
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(float(value)) else None
    if isinstance(value, Iterable):
        return [plain(entry) for entry in cast("Iterable[Any]", value)]
    return None if value is pd.NA or value is pd.NaT else str(value)


def run_summary(sections: Sequence[Section]) -> dict[str, Any]:
    """The numbers of all sections, by key, as JSON values; with the headlines and warnings in words."""
    return {
        "headlines": [s.text for section in sections for s in section.statements if s.headline],
        "warnings": [w for section in sections for w in section.warnings],
        **{section.key: plain({"run": True, **section.numbers}) for section in sections},
    }
