"""Columns are guessed where there is one candidate, and asked for where there are more or none."""

from __future__ import annotations

import pytest

from helix_sae.commands.guesses import Columns, guess_columns
from helix_sae.errors import DataError

LETTERS = ("ACGTACGTACGT", "UUGACCAUGGCA", "acgtnacgtacg")


def rows(**columns: list[object]) -> list[dict[str, object]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_the_only_column_of_letters_and_the_only_one_of_numbers() -> None:
    table = rows(name=["a", "b", "c"], utr=list(LETTERS), te=["1.5", 2, 3.25])
    assert guess_columns(table, "my.csv") == Columns("utr", ("te",))


def test_a_column_that_is_called_sequence_needs_no_guess() -> None:
    table = rows(sequence=list(LETTERS), other=list(LETTERS), half_life=[1, 2, 3], reads=[9, 8, 7])
    assert guess_columns(table, "my.csv") == Columns(None, ("half_life",))


def test_several_columns_of_letters_are_listed() -> None:
    with pytest.raises(
        DataError, match=r"my\.csv: several columns hold sequences \(utr5, utr3\).*--sequence"
    ):
        guess_columns(rows(utr5=list(LETTERS), utr3=list(LETTERS)), "my.csv")


def test_no_column_of_letters() -> None:
    with pytest.raises(DataError, match=r"no column holds sequences.*a, b.*--sequence"):
        guess_columns(rows(a=["x", "y"], b=[1, 2]), "my.csv")


def test_words_and_missing_values_are_no_numbers() -> None:
    table = rows(utr=list(LETTERS), group=["x", "y", "x"], flag=[0, 1, 0], te=[None, 1.0, 2.0])
    assert guess_columns(table, "my.csv").numbers == (), "two values and classes are no measurement"
    assert guess_columns([*table, {"utr": LETTERS[0], "te": 3.0}], "my.csv").numbers == ("te",)


def test_short_letters_are_a_class() -> None:
    table = rows(utr=list(LETTERS), allele=["A", "C", "G"])
    assert guess_columns(table, "my.csv").sequence == "utr"
