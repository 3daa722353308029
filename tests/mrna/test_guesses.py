"""Columns are guessed where there is one candidate, and asked for where there are more or none."""

from __future__ import annotations

import pytest

from helix_sae.errors import DataError
from helix_sae.mrna.columns import CORE_COLUMNS
from helix_sae.mrna.guesses import number_columns, sequence_column

LETTERS = ("ACGTACGTACGT", "UUGACCAUGGCA", "acgtnacgtacg")


def rows(**columns: list[object]) -> list[dict[str, object]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_the_only_column_of_letters_and_the_only_one_of_numbers() -> None:
    table = rows(name=["a", "b", "c"], utr=list(LETTERS), te=["1.5", 2, 3.25])
    assert sequence_column(table, "my.csv") == "utr"
    assert number_columns(table) == ("te",)


def test_columns_of_the_table_itself_and_counters_are_no_measurements() -> None:
    table = rows(n=[1, 2, 3], half_life=[1, 2, 5], reads=[9, 8, 5], structural_length=[1, 2, 4])
    assert number_columns(table, taken=CORE_COLUMNS) == ("half_life",)


def test_several_columns_of_letters_are_listed() -> None:
    with pytest.raises(
        DataError, match=r"in my\.csv.*Several hold nucleotides: 'utr5', 'utr3'.*--sequence utr5"
    ):
        sequence_column(rows(utr5=list(LETTERS), utr3=list(LETTERS)), "my.csv")
    assert sequence_column(rows(utr5=list(LETTERS), utr3=list(LETTERS)), "my.csv", taken=["utr5"]) == "utr3"


def test_no_column_of_letters() -> None:
    with pytest.raises(DataError, match=r"it has: a, b\. Say which.*ingestion\.columns\.sequence="):
        sequence_column(rows(a=["x", "y"], b=[1, 2]), "my.csv")


def test_words_and_missing_values_are_no_numbers() -> None:
    table = rows(utr=list(LETTERS), group=["x", "y", "x"], flag=[0, 1, 0], te=["NA", 1.0, 3.0])
    assert number_columns(table) == (), "two values and classes are no measurement"
    assert number_columns([*table, {"utr": LETTERS[0], "te": 2.5}]) == ("te",)


def test_short_letters_are_a_class_and_one_short_sequence_is_one_of_many() -> None:
    assert sequence_column(rows(utr=list(LETTERS), allele=["A", "C", "G"]), "my.csv") == "utr"
    assert sequence_column(rows(utr=[*LETTERS, "ACG"], codon=["AUG", "CUG", "GUG", "NA"]), "my.csv") == "utr"
