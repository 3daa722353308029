"""Single values of a record: what they say, what says nothing, and what only looks like something else."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from helix_sae.errors import DataError

MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
"""Texts, in lower case, that say that there is no value."""

_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DISGUISES: Mapping[str, re.Pattern[str]] = {
    "a number with a decimal comma": re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE),
    "a number with separators of thousands": re.compile(
        r"[+-]?\d{1,3}(?:[,' \u00a0\u2009\u202f]\d{3})+(\.\d+)?"
    ),
    "a percentage": re.compile(r"[+-]?\d+(?:[.,]\d+)?\s*%"),
    "a date": re.compile(
        r"\d{4}-\d{1,2}-\d{1,2}([T"
        rf" ].*)?|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}}|\d{{1,2}}-(?:{_MONTH})(?:-\d{{2,4}})?"
        rf"|(?:{_MONTH})-\d{{2,4}}",
        re.IGNORECASE,
    ),
}


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


class RepeatedKey(NamedTuple):
    """In place of an object of a JSON file that names a key twice."""

    key: str

    def __str__(self) -> str:
        return f"names the key {self.key[:40]!r} twice in one object; which of the two is meant is not known"


def is_missing(value: object) -> bool:
    """Whether a value says nothing: null, NaN, or one of the usual words for it (``NA``, ``nan``, ``null``...)."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, str):
        return value.strip().lower() in MISSING_WORDS
    return isinstance(value, float) and math.isnan(value)


def as_text(value: object, field: str) -> str | None:
    """A name or label as text; None where it is missing.

    Raises
    ------
    FieldError
        If it is a list, an object or bytes, or holds half a character.
    """
    if is_missing(value):
        return None
    require_scalar(value, field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).lower() if isinstance(value, bool | np.bool_) else str(value).strip()
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise FieldError(
            field, f"{ascii(text)[:40]} holds half a character (a lone surrogate), which no file can store"
        )
    return text


def as_name(value: object, field: str) -> str | None:
    """The name of a record; None where there is none.

    Raises
    ------
    FieldError
        If it reads ``NA`` or the like: another program would take the record for one without a name.
    """
    if isinstance(value, str) and value.strip() and is_missing(value):
        raise FieldError(
            field,
            f"{value.strip()!r} means 'missing' in tables; give the record another name, or leave the field"
            " empty for one by number",
        )
    return as_text(value, field)


def as_number(value: object) -> float | None:
    """The value as a float, None where it is not a number. Infinite where it does not fit one."""
    if isinstance(value, bool | np.bool_ | datetime.timedelta):
        return None
    try:
        # Python reads '1_000' as a number; a measurement file that says so is more likely broken.
        return None if isinstance(value, str) and "_" in value else float(cast("float", value))
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def as_integer(value: object, field: str) -> int | None:
    """The value as a whole number; None where it is missing.

    Raises
    ------
    FieldError
        If it is not one.
    """
    if is_missing(value):
        return None
    number = as_number(value)
    # Beyond 2**53 a float is no longer exact, and no sequence is that long.
    if number is None or not abs(number) < 2**53 or not number.is_integer():
        raise FieldError(field, f"{shorten(value)} is not a whole number")
    return int(number)


def as_reads(value: object) -> float | None:
    """A sequencing depth, at least 0; None where it is missing.

    Raises
    ------
    FieldError
        If it is not one.
    """
    if is_missing(value):
        return None
    number = as_number(value)
    if number is None or not 0 <= number < math.inf:
        raise FieldError("reads", f"{shorten(value)} is not a number of reads")
    return number


def disguise(value: object) -> str | None:
    """What a value is that was meant as a number or is no label: ``"1,5"``, ``"50 %"``, a date, a list; None for others."""
    if isinstance(value, str):
        text = value.strip()
        return next((words for words, pattern in _DISGUISES.items() if pattern.fullmatch(text)), None)
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64):
        return "a date or time"
    if isinstance(value, list | tuple | Mapping | set | bytes):
        return kind_of(cast("object", value))
    return None


def require_scalar(value: object, field: str) -> object:
    """The value, if it is a single one.

    Raises
    ------
    FieldError
        If it is a list, an object or bytes.
    """
    if isinstance(value, RepeatedKey):
        raise FieldError(field, str(value))
    if isinstance(value, list | tuple | Mapping | set | bytes):
        raise FieldError(
            field, f"is {kind_of(cast('object', value))}; only numbers, text, true/false and null can be read"
        )
    return value


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple | set):
        return "a list"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, str):
        return "text"
    return f"the number {value}" if isinstance(value, int | float) else "of a strange type"


def shorten(value: object, length: int = 40) -> str:
    """The value as Python writes it, cut to a length for messages."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
