"""Names and types of the columns of the mRNA table, and which column of a file is which.

A property may be called as its file calls it: a name without one of the prefixes of the table is that of a
``functional_`` column, in the mapping ``columns`` as in the parameters that name a property (``te_hek293`` is
``functional_te_hek293``). ``/``, which AnnData does not allow in a name, becomes ``_``.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna.guesses import listed, sequence_column
from helix_sae.mrna.values import FieldError, as_number, as_text, disguise, is_missing, shorten

_log = logging.getLogger(__name__)

CORE_COLUMNS = ("sequence_id", "sequence", "cds_start", "cds_end", "source", "cluster", "mother", "reads")
DERIVED_COLUMNS = ("split",)
"""Columns that the ingestion adds and no file gives."""
ANNOTATION_PREFIXES = ("functional_", "structural_", "regulatory_")
PREFIXES = (*ANNOTATION_PREFIXES, "metadata_")
REQUIRED_COLUMNS = ("sequence_id", "sequence", "cds_start", "cds_end", "source", "cluster")

CODON_USAGE_PREFIX = "regulatory_codon_usage_"
NUMERIC_COLUMNS = frozenset(
    {
        *("functional_mrl", "functional_te", "functional_half_life", "functional_expression_level"),
        *("structural_length", "structural_gc_content", "structural_mfe"),
        *("regulatory_uorf_count", "regulatory_uaug_count"),
    }
)
"""Columns that only numbers can fill; any other is a number or a category by what most of its values are."""

_MANY_CATEGORIES = 20


def property_name(name: str) -> str:
    """Column of the mRNA table that a property's name stands for: ``te`` and ``functional_te`` are ``functional_te``."""
    clean = name.strip().replace("/", "_")
    if clean in CORE_COLUMNS or any(clean.startswith(p) for p in PREFIXES):
        return clean
    return f"functional_{clean}"


def own_name(column: str) -> str:
    """The name that a user gives a property: ``functional_te`` is ``te``; other columns keep theirs."""
    name = column.removeprefix("functional_")
    return name if property_name(name) == column else column


def check_column_name(name: str) -> None:
    """Raise :class:`ConfigurationError` if the mRNA table cannot have a column of this name."""
    is_named = name in CORE_COLUMNS or any(name.startswith(p) and len(name) > len(p) for p in PREFIXES)
    if not is_named or "/" in name:
        raise ConfigurationError(
            f"{name!r} cannot be a column of the mRNA table. Columns are {', '.join(CORE_COLUMNS)}, or start"
            f" with {', '.join(PREFIXES)} and have no '/'; e.g. 'functional_{name.replace('/', '_')}' for a"
            f" measurement, 'metadata_{name.replace('/', '_')}' for a label."
        )


def resolve_columns(
    rows: Sequence[Mapping[str, object]],
    file: str,
    columns: Mapping[str, str | None],
    properties: Collection[str] = (),
) -> dict[str, str]:
    """Table column -> file column, for what the mapping names, the properties asked for, and names of the table itself.

    Parameters
    ----------
    rows : sequence of mapping
        The records.
    file : str
        Where the first of them was read, for messages.
    columns : mapping
        Column of the table -> column of the file, None to leave one out.
    properties : collection of str
        Properties that later parts ask for by name; a column of the file that is called so is read as one.

    Raises
    ------
    DataError
        If a column of the mapping is in no record, two columns of the file get one name, or no column holds
        sequences.
    ConfigurationError
        If the mapping names a column that the table cannot have.
    """
    present = dict.fromkeys(name for row in rows for name in row)
    shown = listed(present)
    mapping = {_mapped_name(name): column for name, column in columns.items()}
    for name, column in mapping.items():
        if column is not None and column not in present and rows:
            raise DataError(
                f"Column {column!r} (mapped to {name!r}) is in none of the records read from {file}; they"
                f" have: {shown}. Correct the mapping `columns`."
            )
    names: dict[str, str] = {}
    for name in present:
        if (name in CORE_COLUMNS or name.startswith(PREFIXES)) and property_name(name) not in mapping:
            _claim(names, property_name(name), name, file)
    names.update({name: column for name, column in mapping.items() if column is not None})
    for name in properties:
        column = name if name in present else own_name(name)
        if column in present and column not in names.values() and property_name(name) not in mapping:
            _claim(names, property_name(name), column, file)
    if rows and "sequence" not in names:
        names["sequence"] = sequence_column(rows, file, taken=set(names.values()))
        _log.warning(
            "%s: the sequences are taken from column %r, the only one of nucleotides", file, names["sequence"]
        )
    unused = [name for name in present if name not in names.values()]
    if unused:
        _log.info("Columns not read, since nothing maps to them: %s", listed(unused))
    for name in properties:
        close = difflib.get_close_matches(own_name(name), unused, n=1)
        if property_name(name) not in names and close:
            _log.warning("%s: no column %r. Did you mean %r?", file, own_name(name), close[0])
    return names


def _mapped_name(name: str) -> str:
    """Table column that a key of the mapping stands for; a misspelt core column is no property."""
    if name not in CORE_COLUMNS and not name.startswith(PREFIXES):
        close = difflib.get_close_matches(name, CORE_COLUMNS, n=1, cutoff=0.8)
        if close:
            raise ConfigurationError(
                f"{name!r} cannot be a column of the mRNA table. Did you mean {close[0]!r}? A measurement of"
                f" that name is 'functional_{name}'."
            )
    found = property_name(name)
    check_column_name(found)
    return found


def _claim(names: dict[str, str], name: str, column: str, file: str) -> None:
    """Give a column of the file a name of the table that no other has."""
    if name in names:
        raise DataError(
            f"{file}: the columns {names[name]!r} and {column!r} would both be {name!r}. Leave one out in the"
            f" mapping, for example columns: {{{name}: {column!r}}}."
        )
    names[name] = column


def typed_columns(
    rows: Sequence[Mapping[str, object]], places: Sequence[str]
) -> tuple[pd.DataFrame, list[tuple[int, str, str]]]:
    """Type each annotation column: float64, or a category of texts.

    Parameters
    ----------
    rows : sequence of mapping
        Annotation columns of each record.
    places : sequence of str
        Where each was read, for messages.

    Returns
    -------
    columns : DataFrame
    bad : list of (int, str, str)
        Row, field and reason of values that do not fit.

    Raises
    ------
    DataError
        If most values of a column are numbers, dates or lists in disguise, which a category a value would
        hide.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    typed: dict[str, pd.Series] = {}
    bad: list[tuple[int, str, str]] = []
    for name in names:
        typed[name], misfits = _typed_column(name, [row.get(name) for row in rows], places)
        bad += misfits
    return pd.DataFrame(typed, index=pd.RangeIndex(len(rows))), bad


def _typed_column(
    name: str, values: Sequence[object], places: Sequence[str]
) -> tuple[pd.Series, list[tuple[int, str, str]]]:
    """One annotation column, and the values that do not fit it."""
    present = [(row, value) for row, value in enumerate(values) if not is_missing(value)]
    if name.startswith("metadata_"):
        return _category(name, present, len(values))
    numbers = {row: number for row, value in present if (number := as_number(value)) is not None}
    is_numeric = 2 * len(numbers) >= len(present)
    if not is_numeric:
        _refuse_disguised(name, present, len(numbers), places)
    always = name in NUMERIC_COLUMNS or name.startswith(CODON_USAGE_PREFIX)
    if not (is_numeric or always):
        _say_if_all_differ(name, present)
        return _category(name, present, len(values))
    column = np.full(len(values), np.nan)
    column[list(numbers)] = list(numbers.values())
    bad = [
        (row, name, _not_a_number(value, always))
        for row, value in present
        if not math.isfinite(numbers.get(row, math.inf))
    ]
    return pd.Series(column), bad


def _not_a_number(value: object, always: bool) -> str:
    what = disguise(value)
    looks = f" (it looks like {what})" if what else ""
    return f"{shorten(value)} is not a finite number{looks}" + ("" if always else ", as most values here are")


def _refuse_disguised(
    name: str, present: Sequence[tuple[int, object]], n_numbers: int, places: Sequence[str]
) -> None:
    """Stop at a column whose values are numbers that were written in a way that is not read."""
    hidden = [(row, value, what) for row, value in present if (what := disguise(value)) is not None]
    if not hidden or 2 * (len(hidden) + n_numbers) < len(present):
        return
    row, value, what = hidden[0]
    raise DataError(
        f"The property {own_name(name)!r} has {len(hidden)} of {len(present)} values that cannot be read as"
        f" numbers; the first, {shorten(value)} ({places[row]}), is {what}. Read as text, each value would be"
        " a class of its own. Write plain numbers with a decimal point, or leave the column out:"
        f" ingestion.columns: {{{name}: null}}."
    )


def _say_if_all_differ(name: str, present: Sequence[tuple[int, object]]) -> None:
    n_different = len({str(value) for _, value in present})
    if n_different > _MANY_CATEGORIES and 2 * n_different > len(present):
        _log.warning(
            "%s: %d different texts in %d records, each a class of its own; nothing can be learned of most "
            "of them",
            own_name(name), n_different, len(present),
        )  # fmt: skip


def _category(
    name: str, present: Sequence[tuple[int, object]], n: int
) -> tuple[pd.Series, list[tuple[int, str, str]]]:
    texts: list[str | None] = [None] * n
    bad: list[tuple[int, str, str]] = []
    for row, value in present:
        try:
            texts[row] = as_text(value, name)
        except FieldError as error:
            bad.append((row, error.field, error.reason))
    return pd.Series(
        pd.Categorical(texts, categories=sorted({text for text in texts if text is not None}))
    ), bad
