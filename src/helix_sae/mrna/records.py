"""From raw records to the mRNA table that every pipeline starts from.

A reader (:mod:`helix_sae.mrna.readers`) yields raw records: flat mappings with the place they came from.
:func:`build_table` checks them field by field, names each one that cannot be used, and returns the table.

Columns of the table
--------------------
``sequence_id`` (text, unique), ``sequence`` (letters ``ACGUN``), ``cds_start`` and ``cds_end`` (nullable integers,
0-based half-open, the stop codon included; ``cds_end`` missing with ``cds_start`` present: the coding region runs on
past the end), ``source`` (text), ``cluster`` (text, the unit of splitting), ``mother`` (text, optional: the wild type's
``sequence_id``), ``reads`` (number, optional: sequencing depth behind the measurement), and any number of columns
prefixed ``functional_``, ``structural_``, ``regulatory_`` (number or category) or ``metadata_`` (category). What a file
does not say is missing, never 0.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, field_validator

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna.clusters import ClusterBy, assign_clusters

_log = logging.getLogger(__name__)

OnBadRecord = Literal["error", "set_aside"]

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

_MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
_FOREIGN_LETTER = re.compile(r"[^ACGTUNacgtun]")
_CODON = re.compile(r"[ACGTUacgtu]{3}")
_LISTED_ERRORS = 5


class RawRecord(NamedTuple):
    """One record as a file gives it, not yet checked.

    Attributes
    ----------
    file : str
        Where it was read.
    place : str
        Where in the file: ``"record 12"`` (counted from 0) or ``"line 14"`` (counted from 1).
    values : mapping
        Flat; names are the file's columns, or those of the table where the format defines them.
    """

    file: str
    place: str
    values: Mapping[str, object]


class RejectedRecord(NamedTuple):
    """A record that cannot be used: where it is, which field is wrong, and why."""

    file: str
    record: str
    field: str
    reason: str


class RawRecords(NamedTuple):
    """What the readers return: records to check, and places that could not be read as a record at all."""

    records: list[RawRecord]
    rejected: list[RejectedRecord]


class Reporter(BaseModel):
    """Constant flanks of a reporter construct whose variable part is a bare 5'UTR.

    The default coding flank is the start of the eGFP reporter of Sample et al. (2019).

    References
    ----------
    Sample PJ et al. Human 5' UTR design and variant effect prediction from a massively parallel translation assay.
    Nat Biotechnol. 2019;37:803-809.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    five_prime: str = ""
    coding: str = "AUGGGCGAA"

    @field_validator("five_prime", "coding")
    @classmethod
    def _letters(cls, value: str) -> str:
        if not value:
            return value
        try:
            return normalise_sequence(value)
        except FieldError as error:
            raise ValueError(str(error)) from error


class FieldError(DataError):
    """One field of one record is wrong.

    Attributes
    ----------
    field, reason : str
        What is wrong, and why.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def normalise_sequence(sequence: object) -> str:
    """Write a sequence in RNA letters: upper case, ``U`` for ``T``.

    Raises
    ------
    FieldError
        If it is missing, empty, not text, or holds a letter outside ``ACGTUN``.
    """
    if is_missing(sequence):
        raise FieldError("sequence", "is missing or empty")
    if not isinstance(sequence, str):
        raise FieldError("sequence", f"is {_kind(sequence)}, not text")
    letters = sequence.strip()
    foreign = _FOREIGN_LETTER.search(letters)
    if foreign:
        raise FieldError(
            "sequence",
            f"letter {foreign.group()!r} at position {foreign.start()} (from 0) is not one of ACGTUN",
        )
    return letters.upper().replace("T", "U")


def is_missing(value: object) -> bool:
    """Whether a value says nothing: null, NaN, or one of the usual words for it (``NA``, ``nan``, ``null``...)."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, str):
        return value.strip().lower() in _MISSING_WORDS
    return isinstance(value, float) and math.isnan(value)


def flatten_record(record: Mapping[str, object]) -> dict[str, object]:
    """Flatten a record of the JSON schema to the names of the table.

    ``annotations.functional.mrl`` becomes ``functional_mrl``; ``annotations.regulatory.codon_usage.AAA``
    ``regulatory_codon_usage_AAA`` (codons in RNA letters); ``metadata.source`` ``source``; ``metadata.cell_line``
    ``metadata_cell_line``. Core columns may stand at the top or in ``metadata``; the top one wins.

    Raises
    ------
    FieldError
        If a group is not a mapping, or a value is a list.
    """
    values: dict[str, object] = {}
    for key, entry in _mapping(record.get("metadata"), "metadata").items():
        if key in CORE_COLUMNS and key != "sequence":
            values[key] = _scalar(entry, f"metadata.{key}")
        else:
            _flatten_into(values, f"metadata_{key}", entry)
    for group, entries in _mapping(record.get("annotations"), "annotations").items():
        prefix = group if f"{group}_" in ANNOTATION_PREFIXES else f"metadata_{group}"
        for key, entry in _mapping(entries, f"annotations.{group}").items():
            _flatten_into(values, f"{prefix}_{key}", entry)
    for key, entry in record.items():
        if key not in ("annotations", "metadata"):
            values[key] = _scalar(entry, key)
    return values


def build_table(
    raw: RawRecords,
    *,
    columns: Mapping[str, str | None] | None = None,
    reporter: Reporter | None = None,
    on_bad_record: OnBadRecord = "error",
    cluster_by: ClusterBy = "auto",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check raw records and make the mRNA table of them.

    Parameters
    ----------
    raw : RawRecords
        From a reader.
    columns : mapping, optional
        Column of the table -> column of the file, e.g. ``{"sequence": "utr", "functional_mrl": "mrl"}``. Columns that
        already carry a name of the table need no entry; ``None`` leaves one out.
    reporter : Reporter, optional
        Constant flanks to put around each sequence, which is then a bare 5'UTR: the coding region starts after it
        and runs on past the end.
    on_bad_record : {"error", "set_aside"}
        Whether a record that cannot be used stops the work or is set aside in the second table returned.
    cluster_by : str
        See :func:`helix_sae.mrna.clusters.assign_clusters`; ``"auto"`` takes the first of ``cluster``, ``mother`` and
        ``metadata_gene_id`` that the records carry, and similarity where they say nothing.

    Returns
    -------
    table, rejected : DataFrame
        The mRNA table in the order of the records; and the columns ``file, record, field, reason`` of those set aside.

    Raises
    ------
    DataError
        If a column of the mapping is nowhere in the records, if any record is bad and ``on_bad_record`` is ``"error"``,
        or if no usable record is left.
    ConfigurationError
        If the mapping names a column that the table cannot have.
    """
    names = _resolve_columns(raw.records, columns or {})
    rejected = list(raw.rejected)
    drafts: list[_Draft] = []
    taken: dict[str, RawRecord] = {}
    for number, record in enumerate(raw.records):
        try:
            drafts.append(_draft(record, number, names, reporter, taken))
        except FieldError as error:
            rejected.append(RejectedRecord(record.file, record.place, error.field, error.reason))
    annotations, bad = _annotation_columns([draft.annotations for draft in drafts])
    rejected += [
        RejectedRecord(drafts[row].file, drafts[row].place, field, reason) for row, field, reason in bad
    ]
    good = np.setdiff1d(np.arange(len(drafts)), [row for row, _, _ in bad])
    rejected_table = rejected_frame(rejected)
    _stop_or_set_aside(rejected, len(good), on_bad_record)
    drafts = [drafts[row] for row in good]
    table = _assemble(drafts, annotations.iloc[good].reset_index(drop=True), cluster_by)
    if reporter is not None:
        table["sequence"] = reporter.five_prime + table["sequence"] + reporter.coding
        table["cds_start"] += len(reporter.five_prime)
    validate_table(table)
    return table, rejected_table


def rejected_frame(rejected: Iterable[RejectedRecord]) -> pd.DataFrame:
    """The table of rejected records: text columns ``file``, ``record``, ``field``, ``reason``."""
    return pd.DataFrame.from_records(list(rejected), columns=list(RejectedRecord._fields)).astype(str)


def validate_table(table: pd.DataFrame) -> None:
    """Check that a DataFrame is an mRNA table.

    Raises
    ------
    DataError
        Naming the first column and rows that break the definition.
    """
    absent = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if absent:
        raise DataError(f"The mRNA table lacks the column(s) {absent}; it has {list(table.columns)}.")
    for name in table.columns.difference(DERIVED_COLUMNS):
        check_column_name(str(name))
    if table.empty:
        raise DataError("The mRNA table has no rows.")
    _require(
        table["sequence_id"].notna() & table["source"].notna() & table["cluster"].notna(),
        table,
        "an empty name",
    )
    _require(~table["sequence_id"].duplicated(), table, "a sequence_id that another row has")
    _require(table["sequence"].str.fullmatch("[ACGUN]+").astype(bool), table, "a letter outside ACGUN")
    start, end, length = table["cds_start"], table["cds_end"], table["sequence"].str.len()
    # Comparisons with a missing bound are missing: they do not fail.
    _require((start.ge(0) & start.le(length)).fillna(True), table, "cds_start outside the sequence")
    _require(
        (end.gt(start) & end.le(length)).fillna(True),
        table,
        "cds_end outside the sequence or before cds_start",
    )
    _require(start.notna() | end.isna(), table, "cds_end without cds_start")
    _require(((end - start) % 3).eq(0).fillna(True), table, "a coding region that is not a multiple of three")
    for name in table.columns:
        if pd.api.types.is_float_dtype(table[name].dtype):
            _require(~np.isinf(table[name].astype(float)), table, f"an infinite {name}")


def check_column_name(name: str) -> None:
    """Raise :class:`ConfigurationError` if the mRNA table cannot have a column of this name."""
    if name not in CORE_COLUMNS and not any(name.startswith(p) and len(name) > len(p) for p in PREFIXES):
        raise ConfigurationError(
            f"{name!r} cannot be a column of the mRNA table. Columns are {', '.join(CORE_COLUMNS)}, or start with "
            f"{', '.join(PREFIXES)}; e.g. 'functional_{name}' for a measurement, 'metadata_{name}' for a label."
        )


class _Draft(NamedTuple):
    """A record whose core fields have been checked."""

    file: str
    place: str
    sequence_id: str
    sequence: str
    cds_start: int | None
    cds_end: int | None
    source: str
    cluster: str | None
    mother: str | None
    reads: float | None
    annotations: dict[str, object]


def _resolve_columns(records: Sequence[RawRecord], columns: Mapping[str, str | None]) -> dict[str, str]:
    """Table column -> file column, for the columns of the mapping and those that carry their name already."""
    present = dict.fromkeys(name for record in records for name in record.values)
    for name, column in columns.items():
        check_column_name(name)
        if column is not None and column not in present and records:
            raise DataError(
                f"Column {column!r} (mapped to {name!r}) is in none of the records read from {records[0].file}; "
                f"they have: {', '.join(present) or 'nothing'}. Correct the mapping `columns`."
            )
    names = {name: name for name in present if name in CORE_COLUMNS or name.startswith(PREFIXES)}
    names.update({name: column for name, column in columns.items() if column is not None})
    for name in [name for name, column in columns.items() if column is None]:
        names.pop(name, None)
    if records and "sequence" not in names:
        raise DataError(
            f"No column 'sequence' in {records[0].file}; it has: {', '.join(present) or 'nothing'}. "
            "Say which one holds the sequences in the mapping, e.g. columns: {sequence: utr}."
        )
    unused = [name for name in present if name not in names.values()]
    if unused:
        _log.info("Columns not read, since nothing maps to them: %s", ", ".join(unused))
    return names


def _draft(
    record: RawRecord,
    number: int,
    names: Mapping[str, str],
    reporter: Reporter | None,
    taken: dict[str, RawRecord],
) -> _Draft:
    """Check the core fields of one record; ``taken`` collects the ids in use."""
    values = {name: record.values.get(column) for name, column in names.items()}
    sequence = normalise_sequence(values.get("sequence"))
    start, end = _coding_region(values, len(sequence), reporter)
    draft = _Draft(
        file=record.file,
        place=record.place,
        sequence_id=_text(values.get("sequence_id"), "sequence_id")
        or f"{_stem(record.file)}_{_digits(record, number)}",
        sequence=sequence,
        cds_start=start,
        cds_end=end,
        source=_text(values.get("source"), "source") or _stem(record.file),
        cluster=_text(values.get("cluster"), "cluster"),
        mother=_text(values.get("mother"), "mother"),
        reads=_reads(values.get("reads")),
        annotations={name: values[name] for name in values if name.startswith(PREFIXES)},
    )
    other = taken.setdefault(draft.sequence_id, record)
    if other is not record:
        where = other.place if other.file == record.file else f"{other.file}, {other.place}"
        raise FieldError("sequence_id", f"{draft.sequence_id!r} is already the id of {where}")
    return draft


def _coding_region(
    values: Mapping[str, object], length: int, reporter: Reporter | None
) -> tuple[int | None, int | None]:
    """Bounds of the coding region, checked against the sequence."""
    start, end = _integer(values.get("cds_start"), "cds_start"), _integer(values.get("cds_end"), "cds_end")
    if reporter is not None:
        if (start is not None and start != length) or end is not None:
            raise FieldError(
                "cds_start", "the record has a coding region, but `reporter` flanks are for bare 5'UTRs"
            )
        return length, None
    if start is None:
        if end is not None:
            raise FieldError("cds_end", f"is {end} while cds_start is missing")
        return None, None
    if not 0 <= start <= length:
        raise FieldError("cds_start", f"{start} is outside the sequence of {length} nt")
    if end is None:
        return start, None
    if not start < end <= length:
        raise FieldError(
            "cds_end", f"{end} is not in ({start}, {length}]: after cds_start, within the sequence"
        )
    if (end - start) % 3:
        raise FieldError("cds_end", f"the coding region [{start}, {end}) is not a multiple of three")
    return start, end


def _annotation_columns(
    rows: Sequence[Mapping[str, object]],
) -> tuple[pd.DataFrame, list[tuple[int, str, str]]]:
    """Type each annotation column; return the columns and the (row, field, reason) of values that do not fit."""
    names = dict.fromkeys(name for row in rows for name in row)
    typed: dict[str, pd.Series] = {}
    bad: list[tuple[int, str, str]] = []
    for name in names:
        typed[name], misfits = _typed_column(name, [row.get(name) for row in rows])
        bad += misfits
    return pd.DataFrame(typed, index=pd.RangeIndex(len(rows))), bad


def _typed_column(name: str, values: Sequence[object]) -> tuple[pd.Series, list[tuple[int, str, str]]]:
    """One annotation column as float64 or as a category of texts."""
    present = [(row, value) for row, value in enumerate(values) if not is_missing(value)]
    numbers = {row: number for row, value in present if (number := _number(value)) is not None}
    always = name in NUMERIC_COLUMNS or name.startswith(CODON_USAGE_PREFIX)
    if not name.startswith("metadata_") and (always or 2 * len(numbers) >= len(present)):
        column = np.full(len(values), np.nan)
        column[list(numbers)] = list(numbers.values())
        bad = [
            (
                row,
                name,
                f"{_shorten(value)} is not a finite number" + ("" if always else ", as most values here are"),
            )
            for row, value in present
            if not math.isfinite(numbers.get(row, math.inf))
        ]
        return pd.Series(column), bad
    texts: list[str | None] = [None] * len(values)
    bad = []
    for row, value in present:
        try:
            texts[row] = _text(value, name)
        except FieldError as error:
            bad.append((row, error.field, error.reason))
    return pd.Series(
        pd.Categorical(texts, categories=sorted({text for text in texts if text is not None}))
    ), bad


def _assemble(drafts: Sequence[_Draft], annotations: pd.DataFrame, cluster_by: ClusterBy) -> pd.DataFrame:
    """The table of accepted records, with mothers resolved and clusters assigned."""
    table = pd.DataFrame(
        {
            "sequence_id": [draft.sequence_id for draft in drafts],
            "sequence": [draft.sequence for draft in drafts],
            "cds_start": pd.array([draft.cds_start for draft in drafts], dtype="Int64"),
            "cds_end": pd.array([draft.cds_end for draft in drafts], dtype="Int64"),
            "source": [draft.source for draft in drafts],
        }
    )
    labels = {
        "cluster": [draft.cluster for draft in drafts],
        "metadata_gene_id": _texts_of(annotations, "metadata_gene_id"),
    }
    if any(draft.mother is not None for draft in drafts):
        mothers, families = _resolve_mothers(drafts)
        table["mother"] = pd.array(mothers, dtype="object")
        labels["mother"] = families
    if any(draft.reads is not None for draft in drafts):
        table["reads"] = pd.array(
            [np.nan if draft.reads is None else draft.reads for draft in drafts], dtype="float64"
        )
    for name in annotations.columns:
        if cluster_by == name and name not in labels:
            labels[name] = _texts_of(annotations, name)
    table["cluster"] = assign_clusters([draft.sequence for draft in drafts], labels, cluster_by)
    order = [name for name in CORE_COLUMNS if name in table.columns]
    return pd.concat([table[order], annotations], axis=1)


def _resolve_mothers(drafts: Sequence[_Draft]) -> tuple[list[str | None], list[str | None]]:
    """Each record's mother as an id of the table, and the name of its family.

    A file may name the mother by its id or give the wild-type sequence itself. A mother that was not measured has no
    row: it stays missing, but its children still share a family.
    """
    ids = {draft.sequence_id for draft in drafts}
    id_of_sequence: dict[str, str] = {}
    for draft in drafts:
        id_of_sequence.setdefault(draft.sequence, draft.sequence_id)
    mothers: list[str | None] = []
    families: list[str | None] = []
    for draft in drafts:
        named = draft.mother
        if named is None:
            mothers.append(None)
            # A wild type that its children name belongs to their family.
            families.append(draft.sequence_id)
        elif named in ids:
            mothers.append(named)
            families.append(named)
        elif _FOREIGN_LETTER.search(named):
            mothers.append(None)
            families.append(named)
        else:
            sequence = normalise_sequence(named)
            mother = id_of_sequence.get(sequence)
            mothers.append(mother)
            families.append(mother or f"mother_{blake2b(sequence.encode(), digest_size=6).hexdigest()}")
    unmeasured = sum(d.mother is not None and m is None for d, m in zip(drafts, mothers, strict=True))
    if unmeasured:
        _log.info("%d of %d records name a mother that has no row of its own.", unmeasured, len(drafts))
    return mothers, families


def _stop_or_set_aside(rejected: Sequence[RejectedRecord], n_good: int, on_bad_record: OnBadRecord) -> None:
    """Raise the one error that names the bad records, or say in the log how many are set aside."""
    if rejected and (on_bad_record == "error" or n_good == 0):
        remedy = "Correct them, or set `on_bad_record: set_aside` to go on without them."
        raise DataError(describe_rejected(rejected, n_good, remedy))
    if n_good == 0:
        raise DataError("The input holds no record at all.")
    if rejected:
        _log.warning(describe_rejected(rejected, n_good, "They are set aside in `rejected_records`."))


def describe_rejected(rejected: Sequence[RejectedRecord], n_good: int, remedy: str) -> str:
    """One message that names the first bad records."""
    n_bad = len({(r.file, r.record) for r in rejected})
    lines = [f"{n_bad} of {n_good + n_bad} records cannot be used:"]
    lines += [f"  {r.file}, {r.record}, {r.field}: {r.reason}" for r in rejected[:_LISTED_ERRORS]]
    if len(rejected) > _LISTED_ERRORS:
        lines.append(f"  ... and {len(rejected) - _LISTED_ERRORS} more")
    return "\n".join([*lines, remedy])


def _require(holds: pd.Series | np.ndarray, table: pd.DataFrame, what: str) -> None:
    """Raise if any row does not hold."""
    failing = np.flatnonzero(~np.asarray(holds, dtype=bool))
    if failing.size:
        first = table["sequence_id"].iloc[failing[:_LISTED_ERRORS]].tolist()
        raise DataError(f"{failing.size} row(s) of the mRNA table have {what}; the first: {first}.")


def _flatten_into(values: dict[str, object], name: str, entry: object) -> None:
    """Add an entry under ``name``, nested mappings joined with underscores; codons in RNA letters."""
    if isinstance(entry, Mapping):
        for key, inner in cast("Mapping[object, object]", entry).items():
            text = str(key)
            is_codon = f"{name}_" == CODON_USAGE_PREFIX and _CODON.fullmatch(text)
            _flatten_into(values, f"{name}_{text.upper().replace('T', 'U') if is_codon else text}", inner)
        return
    values[name] = _scalar(entry, name)


def _mapping(value: object, field: str) -> Mapping[str, object]:
    """The value as a mapping; nothing at all where it is missing."""
    if is_missing(value):
        return {}
    if not isinstance(value, Mapping):
        raise FieldError(field, f"is {_kind(value)}, not an object")
    return cast("Mapping[str, object]", value)


def _scalar(value: object, field: str) -> object:
    if isinstance(value, list | tuple | Mapping | set):
        raise FieldError(
            field, f"is {_kind(cast('object', value))}; only numbers, text, true/false and null can be read"
        )
    return value


def _text(value: object, field: str) -> str | None:
    """A name or label as text; None where it is missing."""
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).lower() if isinstance(value, bool | np.bool_) else str(value).strip()
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise FieldError(
            field, f"{ascii(text)[:40]} holds half a character (a lone surrogate), which no file can store"
        )
    return text


def _number(value: object) -> float | None:
    """The value as a float, None where it is not a number. Infinite where it does not fit one."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        # Python reads '1_000' as a number; a measurement file that says so is more likely broken.
        return None if isinstance(value, str) and "_" in value else float(cast("float", value))
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _integer(value: object, field: str) -> int | None:
    if is_missing(value):
        return None
    number = _number(value)
    # Beyond 2**53 a float is no longer exact, and no sequence is that long.
    if number is None or not abs(number) < 2**53 or not number.is_integer():
        raise FieldError(field, f"{_shorten(value)} is not a whole number")
    return int(number)


def _reads(value: object) -> float | None:
    if is_missing(value):
        return None
    number = _number(value)
    if number is None or not 0 <= number < math.inf:
        raise FieldError("reads", f"{_shorten(value)} is not a number of reads")
    return number


def _texts_of(annotations: pd.DataFrame, name: str) -> list[str | None]:
    if name not in annotations:
        return [None] * len(annotations)
    return [None if is_missing(value) else str(value) for value in annotations[name].tolist()]


def _digits(record: RawRecord, number: int) -> str:
    """The record's number in its file, for an id that stays when files are added."""
    found = record.place.rsplit(" ", 1)[-1]
    return found.zfill(6) if found.isdigit() else str(number).zfill(6)


def _stem(file: str) -> str:
    """File name without folders and suffixes."""
    return re.split(r"[/\\]", file)[-1].split(".")[0] or "input"


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true/false"
    return (
        "text"
        if isinstance(value, str)
        else f"the number {value}"
        if isinstance(value, int | float)
        else "of a strange type"
    )


def _shorten(value: object, length: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
