"""The index of the atlas: every living feature in a row, as columns that the page sorts, filters and searches."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.figures.style import property_label
from helix_sae.reporting.wording import words

Kind = Literal["name", "text", "choice", "number", "whisker"]
Format = Literal["", "percent", "number", "fixed", "signed", "probability"]

_DIGITS = 5
"""Significant digits of a number in the page."""


class IndexColumn(NamedTuple):
    """A column of the index.

    Attributes
    ----------
    key : str
        Of the table of features, and in links.
    title : str
    kind : Kind
        ``text`` is filtered by what is typed, ``choice`` by one of its words, ``number`` by a range; a
        ``whisker`` is drawn from ``effect`` and its interval.
    width : float
        In rem.
    meaning : str
        Shown when the pointer rests on the title.
    format : Format
    decimals : int
    say : callable, optional
        Words for a value of the table.
    """

    key: str
    title: str
    kind: Kind
    width: float
    meaning: str
    format: Format = ""
    decimals: int = 2
    say: Callable[[object], str] = str


COLUMNS: tuple[IndexColumn, ...] = (
    IndexColumn("name", "Feature", "name", 10.5, "Site and number of the feature."),
    IndexColumn("label", "Label", "text", 9, "What people call it: see its card."),
    IndexColumn(
        "suggested", "Suggested label", "text", 10, "What the evidence suggests; the card has the rule."
    ),
    IndexColumn("site", "Site", "choice", 8.5, "Place in the model."),
    IndexColumn(
        "density", "Density", "number", 5.5, "Share of nucleotides at which it is active, in %.", "percent"
    ),
    IndexColumn("maximum", "Largest", "number", 5.5, "Largest activation.", "number", 3),
    IndexColumn(
        "stability",
        "Comes back",
        "number",
        5.5,
        "Share of other seeds that have the feature, in %.",
        "percent",
        0,
    ),
    IndexColumn(
        "certified",
        "Certified",
        "choice",
        6,
        "Whether at least three quarters of four or more other seeds have it.",
    ),
    IndexColumn(
        "best_concept",
        "Best concept",
        "text",
        11,
        "Concept that it matches best on held-out families.",
        say=words,
    ),
    IndexColumn("best_concept_f1", "F1", "number", 5, "F1 of the best concept.", "fixed"),
    IndexColumn(
        "best_property",
        "Best association",
        "text",
        11,
        "Property with the strongest association; replicated ones first.",
        say=lambda value: property_label(str(value)),
    ),
    IndexColumn(
        "association", "Association", "number", 5.5, "Its size and sign on validation families.", "signed"
    ),
    IndexColumn("association_q", "q of it", "number", 5.5, "q-value on discovery families.", "probability"),
    IndexColumn(
        "association_replicated", "Replicated", "choice", 6, "Whether the association was found again."
    ),
    IndexColumn(
        "effect",
        "Effect",
        "number",
        5.5,
        "Effect on the prediction of changing this feature alone; positive is towards the other sequence of "
        "the pair.",
        "signed",
        3,
    ),
    IndexColumn(
        "effect_low", "From", "number", 5.5, "Lower end of the 95 % interval of the effect.", "signed", 3
    ),
    IndexColumn(
        "effect_high", "To", "number", 5.5, "Upper end of the 95 % interval of the effect.", "signed", 3
    ),
    IndexColumn(
        "drawn",
        "Effect, drawn",
        "whisker",
        8,
        "Filled where it was confirmed on held-out families; dashed: no effect.",
    ),
    IndexColumn(
        "effect_q", "q of effect", "number", 5.5, "q-value of the test on held-out families.", "probability"
    ),
    IndexColumn(
        "effect_confirmed",
        "Confirmed",
        "choice",
        6,
        "Whether the effect was confirmed on held-out families.",
    ),
    IndexColumn(
        "causes", "Causes", "text", 9, "Edits whose effect it carries by itself; confirmed.", say=words
    ),
    IndexColumn("in_circuit", "Circuit", "choice", 5.5, "Whether it is a member of the circuit."),
    IndexColumn("letters", "Letters", "text", 10, "What its logo says; a dot where a place tells nothing."),
    IndexColumn("chosen_for", "Highlight", "text", 9, "What it was chosen for among the first rows."),
)
"""In the order of the page; those without any value are left out of it."""

GLOSSES = {
    "uaug": "upstream start codon AUG",
    "uorf": "upstream open reading frame ORF",
    "mrl": "mean ribosome load",
    "utr": "untranslated region",
    "cds": "coding sequence",
    "kozak": "start codon context",
    "codon pos": "reading frame",
}
"""What a search also finds a text by, if it holds this: few look for an abbreviation that they have not seen yet."""

_ALWAYS = ("name", "label")
"""Columns that are there without a value: labels may be given in the page."""


def index_columns(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The columns as the page reads them.

    Parameters
    ----------
    table : DataFrame
        A row a feature: what :func:`helix_sae.reporting.features.feature_table` has, with ``density``,
        ``maximum``, ``letters`` and ``chosen_for`` of the cards.

    Returns
    -------
    list of dict
        ``key, title, kind, width, meaning, format, decimals`` and the values: ``values`` (numbers, None where
        missing), or ``words`` in their order with, for each row, its place among them (``codes``; -1 where
        missing).
    """
    made: list[dict[str, Any]] = []
    for column in COLUMNS:
        stated = {**column._asdict()}
        del stated["say"]
        if column.kind == "whisker":
            if "effect" in table and table["effect"].notna().any():
                made.append(stated)
        elif column.key in table:
            values = table[column.key]
            found = _numbers(values) if column.kind == "number" else _texts(values, column.say)
            if column.key in _ALWAYS or any(
                v not in (None, -1) for v in found.get("values", found.get("codes", []))
            ):
                made.append({**stated, **found})
    return made


def property_columns(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Properties of sequences, and their source, as columns of the same form: what the map of sequences is coloured by."""
    made: list[dict[str, Any]] = []
    for name in sorted(table.columns, key=lambda name: not str(name).startswith("functional_")):
        values = table[name]
        is_property = str(name).startswith(("functional_", "structural_", "regulatory_"))
        if not (is_property or name in _OF_RECORDS) or not values.notna().any():
            continue
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        found = _numbers(values) if is_number else _texts(values, str)
        stated = {"key": str(name), "title": property_label(str(name)), "format": "number", "decimals": 3}
        made.append({**stated, "kind": "number" if is_number else "choice", **found})
    return made


_OF_RECORDS = ("source", "split")


def _numbers(values: pd.Series) -> dict[str, Any]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
    return {"values": [float(f"{v:.{_DIGITS}g}") if np.isfinite(v) else None for v in numbers.tolist()]}


def _texts(values: pd.Series, say: Callable[[object], str]) -> dict[str, Any]:
    codes, found = pd.factorize(values.where(values.notna() & (values.astype(str) != ""), None))
    said = [_YES_NO.get(str(value), say(value)) for value in found]
    known = sorted(set(said), key=natural)
    place = {word: i for i, word in enumerate(known)}
    order = np.array([*(place[word] for word in said), -1], dtype=np.int64)
    return {"words": known, "codes": order[codes].tolist()}


_YES_NO = {"True": "yes", "False": "no"}


def natural(text: str) -> list[Any]:
    """Key by which ``L10.2`` comes after ``L2.10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
