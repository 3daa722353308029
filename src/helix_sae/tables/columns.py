"""Columns that several tables have, and short forms for the common kinds."""

from __future__ import annotations

from helix_sae.tables.schema import Column

SITE = Column(kind="text", meaning="Place in the model: a module path, such as layers.4.mixer.")


def text(meaning: str) -> Column:
    """A text that may be missing."""
    return Column(kind="text", meaning=meaning, nullable=True)


def count(meaning: str, unit: str | None = None) -> Column:
    """A whole number that is not negative."""
    return Column(kind="count", meaning=meaning, unit=unit, low=0, nullable=True)


def share(meaning: str) -> Column:
    """A number between 0 and 1, unknown where it is missing."""
    return Column(kind="number", meaning=meaning, low=0, high=1, nullable=True)


def correlation(meaning: str) -> Column:
    """A number between -1 and 1, unknown where it is missing."""
    return Column(kind="number", meaning=meaning, low=-1, high=1, nullable=True)


def number(meaning: str, unit: str | None = None) -> Column:
    """A number, unknown where it is missing."""
    return Column(kind="number", meaning=meaning, unit=unit, nullable=True)


def p_value(meaning: str) -> Column:
    """A probability under the null hypothesis."""
    return share(meaning)
