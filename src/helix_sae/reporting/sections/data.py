"""The data and the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.figures.style import property_label
from helix_sae.mrna.absences import absences
from helix_sae.mrna.doubts import coding_region_doubts
from helix_sae.reporting.document import Block, Column, ReportTable, Section, Statement, Tile, is_empty
from helix_sae.reporting.wording import MISSING, count, listing, number, percent

_CATEGORIES = ("functional", "structural", "regulatory")
_SHOWN_REASONS = 8
_SHOWN_PROPERTIES = 30


class ModelFacts(NamedTuple):
    """The model and what was recorded of it.

    Attributes
    ----------
    source : str
        Directory or hub id.
    fingerprint : str
        Hash of the weights.
    codon_markers : str
    widths : mapping of site to int
        Sites, in forward order, and the width of their activations.
    n_sequences, n_tokens : int
        Recorded.
    """

    source: str
    fingerprint: str
    codon_markers: str
    widths: Mapping[str, int]
    n_sequences: int
    n_tokens: int


def data_section(table: pd.DataFrame, rejected: pd.DataFrame | None, model: ModelFacts | None) -> Section:
    """What went in.

    Parameters
    ----------
    table : DataFrame
        mRNA table; a column ``split`` says which part a record belongs to.
    rejected : DataFrame or None
        ``file, record, field, reason`` of the records set aside.
    model : ModelFacts or None
        None where no activations were recorded.
    """
    lengths = table["sequence"].str.len().to_numpy()
    n_set_aside = 0 if rejected is None else len(rejected)
    sources = {str(k): int(v) for k, v in table["source"].value_counts().items()}
    known = int(table["cds_start"].notna().sum())
    statements = [
        Statement(_records(table, sources), headline=True),
        Statement(
            f"Sequences are {_range(lengths)} nt long (median {number(float(np.median(lengths)))}); the start"
            f" codon is known in {known:,} of them and the stop codon in"
            f" {int(table['cds_end'].notna().sum()):,}."
        ),
        _set_aside(rejected),
        _model(model),
    ]
    blocks: list[Block] = []
    properties = _properties(table)
    if properties:
        blocks.append(_property_table(properties))
    if not is_empty(rejected):
        blocks.append(_rejected_table(rejected))  # type: ignore[arg-type]
    return Section(
        "data",
        "Data and model",
        statements,
        blocks,
        {
            "n_records": len(table),
            "n_set_aside": n_set_aside,
            "n_clusters": int(table["cluster"].nunique()),
            "sources": sources,
            "splits": table["split"].value_counts().to_dict() if "split" in table else {},
            "length_median": float(np.median(lengths)),
            "length_min": int(lengths.min()),
            "length_max": int(lengths.max()),
            "n_with_start": known,
            "properties": properties,
            "model": None if model is None else model._asdict(),
        },
        [
            Tile("Records", f"{len(table):,}", count(int(table["cluster"].nunique()), "family", "families")),
        ],
        [
            *(
                [f"{count(n_set_aside, 'record was', 'records were')} set aside as unusable."]
                if n_set_aside
                else []
            ),
            *_doubts(table),
            *(f"Absent from the input: {absence}" for absence in absences(table)),
        ],
    )


def _model(model: ModelFacts | None) -> Statement:
    if model is None:
        return Statement("No activations of a model were recorded.", "absent")
    markers = "with a marker before each codon" if model.codon_markers == "cds" else "without codon markers"
    return Statement(
        f"The model is {model.source} (fingerprint {model.fingerprint[:12]}). Its activations were recorded"
        f" at {count(len(model.widths), 'site')} ({listing(list(model.widths))}) for"
        f" {count(model.n_tokens, 'token')} of {count(model.n_sequences, 'sequence')}, {markers}."
    )


def _doubts(table: pd.DataFrame) -> list[str]:
    """Coding regions that do not look like one, by what is wrong with them."""
    found = coding_region_doubts(table).groupby("doubt", sort=False)["sequence_id"]
    return [
        f"The coding region {doubt} in {count(len(ids), 'record')} ({', '.join(map(str, ids.iloc[:3]))}"
        f"{', ...' if len(ids) > 3 else ''}); the concepts and codon properties of "
        f"{'it' if len(ids) == 1 else 'these'} are as its coordinates say."
        for doubt, ids in found
    ]


def _records(table: pd.DataFrame, sources: Mapping[str, int]) -> str:
    n_clusters = int(table["cluster"].nunique())
    text = f"{count(len(table), 'record')} in {count(n_clusters, 'family', 'families')} of related sequences"
    if len(sources) > 1:
        shown = [f"{n:,} {name}" for name, n in list(sources.items())[:5]]
        if len(sources) > len(shown):
            shown.append(count(len(sources) - len(shown), "further source"))
        text += f" ({listing(shown)})"
    if "split" in table:
        parts = table["split"].value_counts()
        text += (
            f"; whole families went to discovery ({int(parts.get('discovery', 0)):,} records) or were held"
            f" out for validation ({int(parts.get('validation', 0)):,})"
        )
    return text + "."


def _range(lengths: np.ndarray) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _set_aside(rejected: pd.DataFrame | None) -> Statement:
    if rejected is None or rejected.empty:
        return Statement("No record was set aside.")
    fields = rejected["field"].value_counts()
    named = listing([f"{n:,} for their {name}" for name, n in list(fields.items())[:4]])
    return Statement(
        f"{count(len(rejected), 'record was', 'records were')} set aside: {named}.", "weak", headline=True
    )


def _properties(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Every property that at least one record has."""
    found: list[dict[str, Any]] = []
    for category in _CATEGORIES:
        for name in (str(c) for c in table.columns if str(c).startswith(f"{category}_")):
            column = table[name]
            n = int(column.notna().sum())
            if n == 0:
                continue
            row: dict[str, Any] = {"property": name, "category": category, "n": n, "share": n / len(table)}
            if pd.api.types.is_numeric_dtype(column):
                values = column.dropna().to_numpy(dtype=float)
                row |= dict(
                    zip(("low", "median", "high"), np.quantile(values, [0.05, 0.5, 0.95]), strict=True)
                )
            else:
                row["classes"] = int(column.nunique())
            found.append(row)
    return found


def _property_table(properties: list[dict[str, Any]]) -> ReportTable:
    # Codon usage alone has 64 columns: the rarest-known are left to the data file.
    shown = [p for p in properties if "codon_usage" not in p["property"]][:_SHOWN_PROPERTIES]
    left_out = len(properties) - len(shown)
    rows = [
        [
            property_label(p["property"]),
            p["category"],
            f"{p['n']:,}",
            percent(p["share"]),
            number(p["median"]) if "median" in p else count(p["classes"], "class", "classes"),
            f"{number(p['low'])} to {number(p['high'])}" if "median" in p else MISSING,
        ]
        for p in shown
    ]
    note = f" {count(left_out, 'further column')} (codon usage and the like) not shown." if left_out else ""
    return ReportTable(
        f"Properties of the sequences. What a file does not say is missing, never zero.{note}",
        [
            Column("Property"),
            Column("Category"),
            Column("Known for", "number"),
            Column("", "number"),
            Column("Median", "number"),
            Column("5 to 95 %", "number"),
        ],
        rows,
    )


def _rejected_table(rejected: pd.DataFrame) -> ReportTable:
    groups = rejected.groupby(["field", "reason"], sort=False).agg(
        n=("record", "size"), first=("record", "first")
    )
    ordered = groups.sort_values("n", ascending=False, kind="stable").reset_index()
    rows = [
        [str(r["field"]), str(r["reason"]), f"{int(r['n']):,}", str(r["first"])]
        for r in ordered.head(_SHOWN_REASONS).to_dict("records")
    ]
    return ReportTable(
        "Records set aside. The whole list is in rejected_records.",
        [Column("Field"), Column("Reason"), Column("Records", "number"), Column("First", "code")],
        rows,
    )
