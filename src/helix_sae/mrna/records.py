"""From raw records to the mRNA table that every pipeline starts from.

A reader (:mod:`helix_sae.mrna.readers`) yields raw records: flat mappings with the place they came from.
:func:`build_table` checks them field by field, names each one that cannot be used, and returns the table.

Columns of the table
--------------------
``sequence_id`` (text, unique), ``sequence`` (letters ``ACGUN``), ``cds_start`` and ``cds_end`` (nullable
integers, 0-based half-open, the stop codon included; ``cds_end`` missing with ``cds_start`` present: the
coding region runs on past the end), ``source`` (text), ``cluster`` (text, the unit of splitting), ``mother``
(text, optional: the wild type's ``sequence_id``), ``reads`` (number, optional: sequencing depth behind the
measurement), and any number of columns prefixed ``functional_``, ``structural_``, ``regulatory_`` (number or
category) or ``metadata_`` (category). What a file does not say is missing, never 0.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, field_validator

from helix_sae.errors import DataError
from helix_sae.mrna.clusters import ClusterBy, assign_clusters
from helix_sae.mrna.columns import (
    ANNOTATION_PREFIXES,
    CODON_USAGE_PREFIX,
    CORE_COLUMNS,
    DERIVED_COLUMNS,
    PREFIXES,
    REQUIRED_COLUMNS,
    check_column_name,
    resolve_columns,
    typed_columns,
)
from helix_sae.mrna.lengths import MAX_TOKENS, OnLongSequence, fitting_length, n_tokens
from helix_sae.mrna.values import (
    FieldError,
    RepeatedKey,
    as_integer,
    as_name,
    as_reads,
    as_text,
    is_missing,
    kind_of,
    require_scalar,
    shorten,
)

_log = logging.getLogger(__name__)

OnBadRecord = Literal["error", "set_aside"]

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

    Attributes
    ----------
    five_prime : str
        Nucleotides before every 5'UTR.
    coding : str
        Nucleotides behind it, from the start codon on.

    References
    ----------
    Sample PJ et al. Human 5' UTR design and variant effect prediction from a massively parallel translation
    assay. Nat Biotechnol. 2019;37:803-809.
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


def normalise_sequence(sequence: object) -> str:
    """Write a sequence in RNA letters: upper case, ``U`` for ``T``.

    Raises
    ------
    FieldError
        If it is missing, empty, not text, holds a letter outside ``ACGTUN``, or both ``T`` and ``U``.
    """
    if is_missing(sequence):
        raise FieldError("sequence", "is missing or empty")
    if not isinstance(sequence, str):
        raise FieldError("sequence", f"is {kind_of(sequence)}, not text")
    letters = sequence.strip()
    foreign = _FOREIGN_LETTER.search(letters)
    if foreign:
        raise FieldError(
            "sequence",
            f"letter {foreign.group()!r} at position {foreign.start()} (from 0) is not one of ACGTUN",
        )
    upper = letters.upper()
    if "T" in upper and "U" in upper:
        raise FieldError("sequence", "has both T and U: it is neither DNA nor RNA; write one of them")
    return upper.replace("T", "U")


def flatten_record(record: Mapping[str, object]) -> dict[str, object]:
    """Flatten a record of the JSON schema to the names of the table.

    ``annotations.functional.mrl`` becomes ``functional_mrl``; ``annotations.regulatory.codon_usage.AAA``
    ``regulatory_codon_usage_AAA`` (codons in RNA letters); ``metadata.source`` ``source``;
    ``metadata.cell_line`` ``metadata_cell_line``. Core columns may stand at the top or in ``metadata``.

    Raises
    ------
    FieldError
        If a group is not a mapping, a value is a list, an object names a key twice, or two values get one
        name.
    """
    values = _NamedOnce()
    for key, entry in _mapping(record.get("metadata"), "metadata").items():
        if key in CORE_COLUMNS and key != "sequence":
            values[key] = require_scalar(entry, f"metadata.{key}")
        else:
            _flatten_into(values, f"metadata_{key}", entry)
    for group, entries in _mapping(record.get("annotations"), "annotations").items():
        prefix = group if f"{group}_" in ANNOTATION_PREFIXES else f"metadata_{group}"
        for key, entry in _mapping(entries, f"annotations.{group}").items():
            _flatten_into(values, f"{prefix}_{key}", entry)
    for key, entry in record.items():
        if key not in ("annotations", "metadata"):
            values[key] = require_scalar(entry, key)
    return dict(values)


def build_table(
    raw: RawRecords,
    *,
    columns: Mapping[str, str | None] | None = None,
    properties: Collection[str] = (),
    reporter: Reporter | None = None,
    counted_from: Literal[0, 1] = 0,
    max_tokens: int | None = MAX_TOKENS,
    on_long_sequence: OnLongSequence = "error",
    on_bad_record: OnBadRecord = "error",
    cluster_by: ClusterBy = "auto",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check raw records and make the mRNA table of them.

    Parameters
    ----------
    raw : RawRecords
        From a reader.
    columns : mapping, optional
        Column of the table -> column of the file, e.g. ``{"sequence": "utr", "mrl": "mean_load"}``; a name
        without a prefix is that of a ``functional_`` column. Columns that already carry a name of the table
        need no entry; ``None`` leaves one out.
    properties : collection of str
        Properties that later parts ask for; a column of the file that is called so is read as one.
    reporter : Reporter, optional
        Constant flanks to put around each sequence, which is then a bare 5'UTR: the coding region starts
        after it and runs on past the end.
    counted_from : {0, 1}
        Whether ``cds_start`` counts from 0 (and ``cds_end`` is the first position after the region) or from 1
        (and ``cds_end`` is the last position in it, as in GenBank).
    max_tokens : int, optional
        Longest input of the model, codon markers and the closing token among it; None for any length.
    on_long_sequence : {"error", "cut", "set_aside"}
        Whether a longer sequence stops the work, keeps its 5' end, or is set aside.
    on_bad_record : {"error", "set_aside"}
        Whether a record that cannot be used stops the work or is set aside in the second table returned.
    cluster_by : str
        See :func:`helix_sae.mrna.clusters.assign_clusters`; ``"auto"`` takes the first of ``cluster``,
        ``mother`` and ``metadata_gene_id`` that the records carry, and similarity where they say nothing.

    Returns
    -------
    table, rejected : DataFrame
        The mRNA table in the order of the records; and the columns ``file, record, field, reason`` of those
        set aside.

    Raises
    ------
    DataError
        If a column of the mapping is nowhere in the records; if any record is bad and ``on_bad_record`` is
        ``"error"``, or too long and ``on_long_sequence`` is; if coding regions are counted from another
        number; if a property holds numbers in disguise (:func:`helix_sae.mrna.columns.typed_columns`); or if
        no usable record is left.
    ConfigurationError
        If the mapping names a column that the table cannot have.
    """
    first = raw.records[0].file if raw.records else "the input"
    names = resolve_columns([record.values for record in raw.records], first, columns or {}, properties)
    rejected = list(raw.rejected)
    drafts: list[_Draft] = []
    taken: dict[str, RawRecord] = {}
    for number, record in enumerate(raw.records):
        try:
            drafts.append(_draft(record, number, names, reporter, counted_from, taken))
        except FieldError as error:
            rejected.append(RejectedRecord(record.file, record.place, error.field, error.reason))
    _refuse_shifted(drafts)
    drafts, too_long = _fit(drafts, reporter, max_tokens, on_long_sequence)
    places = [f"{draft.file}, {draft.place}" for draft in drafts]
    annotations, bad = typed_columns([draft.annotations for draft in drafts], places)
    rejected += [
        RejectedRecord(drafts[row].file, drafts[row].place, field, reason) for row, field, reason in bad
    ]
    good = np.setdiff1d(np.arange(len(drafts)), [row for row, _, _ in bad])
    _stop_or_set_aside(rejected, too_long, len(good), on_bad_record)
    drafts = [drafts[row] for row in good]
    table = _assemble(drafts, annotations.iloc[good].reset_index(drop=True), cluster_by)
    if reporter is not None:
        table["sequence"] = reporter.five_prime + table["sequence"] + reporter.coding
        table["cds_start"] += len(reporter.five_prime)
    validate_table(table)
    return table, rejected_frame([*rejected, *too_long])


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


def _draft(
    record: RawRecord,
    number: int,
    names: Mapping[str, str],
    reporter: Reporter | None,
    counted_from: int,
    taken: dict[str, RawRecord],
) -> _Draft:
    """Check the core fields of one record; ``taken`` collects the ids in use."""
    values = {name: record.values.get(column) for name, column in names.items()}
    sequence = normalise_sequence(values.get("sequence"))
    start, end = _coding_region(values, sequence, reporter, counted_from)
    draft = _Draft(
        file=record.file,
        place=record.place,
        sequence_id=as_name(values.get("sequence_id"), "sequence_id")
        or f"{_stem(record.file)}_{_digits(record, number)}",
        sequence=sequence,
        cds_start=start,
        cds_end=end,
        source=as_text(values.get("source"), "source") or _stem(record.file),
        cluster=as_text(values.get("cluster"), "cluster"),
        mother=as_text(values.get("mother"), "mother"),
        reads=as_reads(values.get("reads")),
        annotations={name: values[name] for name in values if name.startswith(PREFIXES)},
    )
    other = taken.setdefault(draft.sequence_id, record)
    if other is not record:
        where = other.place if other.file == record.file else f"{other.file}, {other.place}"
        raise FieldError("sequence_id", f"{draft.sequence_id!r} is already the id of {where}")
    return draft


def _coding_region(
    values: Mapping[str, object], sequence: str, reporter: Reporter | None, counted_from: int
) -> tuple[int | None, int | None]:
    """Bounds of the coding region, 0-based half-open, checked against the sequence."""
    start, end = (
        as_integer(values.get("cds_start"), "cds_start"),
        as_integer(values.get("cds_end"), "cds_end"),
    )
    # Counted from 1 the last position is named, counted from 0 the one after it: the same number.
    start = start if start is None else start - counted_from
    length = len(sequence)
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
        shifted = (end - start) % 3 == 2 and start > 0 and sequence.startswith("AUG", start - 1)
        hint = (
            "; counted from 1 it would be one that starts with AUG (ingestion.counted_from: 1)"
            if shifted
            else ""
        )
        raise FieldError("cds_end", f"the coding region [{start}, {end}) is not a multiple of three{hint}")
    return start, end


def _refuse_shifted(drafts: Sequence[_Draft]) -> None:
    """Stop where most coding regions begin one nucleotide beside an AUG: they are counted from another number."""
    known = [draft for draft in drafts if draft.cds_start]
    for offset, words, remedy in ((-1, "before", 1), (1, "after", 0)):
        beside = [d for d in known if d.sequence.startswith("AUG", int(d.cds_start or 0) + offset)]
        if 2 * len(beside) > len(known):
            raise DataError(
                f"{len(beside)} of {len(known)} coding regions have their AUG one nucleotide {words}"
                f" cds_start, the first in {beside[0].file}, {beside[0].place}: positions are counted from"
                f" another number than was said. Set ingestion.counted_from: {remedy}, or correct cds_start."
            )


def _fit(
    drafts: list[_Draft], reporter: Reporter | None, max_tokens: int | None, on_long: OnLongSequence
) -> tuple[list[_Draft], list[RejectedRecord]]:
    """Records as long as the model reads, and those set aside."""
    if max_tokens is None:
        return drafts, []
    flanks = (len(reporter.five_prime), len(reporter.coding)) if reporter else (0, 0)
    kept: list[_Draft] = []
    too_long: list[RejectedRecord] = []
    for draft in drafts:
        start = None if draft.cds_start is None else draft.cds_start + flanks[0]
        n = n_tokens(len(draft.sequence) + sum(flanks), start, draft.cds_end)
        if n <= max_tokens:
            kept.append(draft)
            continue
        reason = (
            f"{draft.sequence_id}: {len(draft.sequence):,} nt are {n:,} tokens, and the model reads"
            f" {max_tokens:,}"
        )
        too_long.append(RejectedRecord(draft.file, draft.place, "sequence", reason))
        if on_long == "cut" and reporter is None:
            kept.append(_cut(draft, fitting_length(len(draft.sequence), start, draft.cds_end, max_tokens)))
    if too_long and (on_long == "error" or (on_long == "cut" and reporter is not None)):
        remedy = "`cut` (keeps the 5' end) or `set_aside`" if reporter is None else "`set_aside`"
        raise DataError(
            describe_rejected(too_long, len(kept), f"Set ingestion.on_long_sequence to {remedy} to go on.")
        )
    if too_long and on_long == "cut":
        _log.warning(describe_rejected(too_long, len(kept) - len(too_long), "Their 3' ends are cut off."))
        return kept, []
    return kept, too_long


def _cut(draft: _Draft, length: int) -> _Draft:
    """The 5' end of a record; a coding region that is cut runs on past the end, one beyond it is not known."""
    start, end = draft.cds_start, draft.cds_end
    if start is not None and start >= length:
        start = end = None
    if end is not None and end > length:
        end = None
    return draft._replace(sequence=draft.sequence[:length], cds_start=start, cds_end=end)


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

    A file may name the mother by its id or give the wild-type sequence itself. A mother that was not measured
    has no row: it stays missing, but its children still share a family.
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
            sequence = named.upper().replace("T", "U")
            mother = id_of_sequence.get(sequence)
            mothers.append(mother)
            families.append(mother or f"mother_{blake2b(sequence.encode(), digest_size=6).hexdigest()}")
    unmeasured = sum(d.mother is not None and m is None for d, m in zip(drafts, mothers, strict=True))
    if unmeasured:
        _log.info("%d of %d records name a mother that has no row of its own.", unmeasured, len(drafts))
    return mothers, families


def _stop_or_set_aside(
    rejected: Sequence[RejectedRecord],
    too_long: Sequence[RejectedRecord],
    n_good: int,
    on_bad_record: OnBadRecord,
) -> None:
    """Raise the one error that names the bad records, or say in the log how many are set aside."""
    if n_good == 0 and not rejected and not too_long:
        raise DataError("The input holds no record at all.")
    if n_good == 0 or (rejected and on_bad_record == "error"):
        remedy = "Correct them, or set `on_bad_record: set_aside` to go on without them."
        raise DataError(describe_rejected(rejected or too_long, n_good, remedy))
    for those in (rejected, too_long):
        if those:
            _log.warning(describe_rejected(those, n_good, "They are set aside in `rejected_records`."))


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


class _NamedOnce(dict[str, object]):
    """The values of a record; of two that differ under one name it cannot be known which is meant."""

    def __setitem__(self, name: str, value: object) -> None:
        if not is_missing(self.get(name)) and not is_missing(value) and self[name] != value:
            raise FieldError(name, f"is given twice, as {shorten(self[name])} and as {shorten(value)}")
        if is_missing(self.get(name)):
            super().__setitem__(name, value)


def _flatten_into(values: _NamedOnce, name: str, entry: object) -> None:
    """Add an entry under ``name``, nested mappings joined with underscores; codons in RNA letters."""
    if isinstance(entry, Mapping):
        for key, inner in cast("Mapping[object, object]", entry).items():
            text = str(key)
            is_codon = f"{name}_" == CODON_USAGE_PREFIX and _CODON.fullmatch(text)
            _flatten_into(values, f"{name}_{text.upper().replace('T', 'U') if is_codon else text}", inner)
        return
    values[name] = require_scalar(entry, name)


def _mapping(value: object, field: str) -> Mapping[str, object]:
    """The value as a mapping; nothing at all where it is missing."""
    if is_missing(value):
        return {}
    if isinstance(value, RepeatedKey):
        raise FieldError(field, str(value))
    if not isinstance(value, Mapping):
        raise FieldError(field, f"is {kind_of(value)}, not an object")
    return cast("Mapping[str, object]", value)


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
