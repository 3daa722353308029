"""Names of properties: as the table has them, and as their owner calls them."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.mrna.absences import absences
from helix_sae.mrna.columns import own_name, property_name, resolve_columns
from helix_sae.mrna.records import RawRecord, RawRecords, build_table
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters
from helix_sae.pipelines.correlation.parameters import CorrelationParameters


@pytest.mark.parametrize(
    ("given_name", "column"),
    [
        ("te_hek293", "functional_te_hek293"),
        ("functional_te", "functional_te"),
        ("structural_length", "structural_length"),
        (" RNA/DNA ratio", "functional_RNA_DNA ratio"),
        ("reads", "reads"),
    ],
)
def test_a_bare_name_is_that_of_a_measured_property(given_name: str, column: str) -> None:
    assert property_name(given_name) == column


@given(st.text(min_size=1, max_size=12))
def test_the_own_name_comes_back(name: str) -> None:
    column = property_name(name)
    assert property_name(own_name(column)) == column


def test_target_and_properties_are_read_under_their_own_names() -> None:
    names = resolve_columns(
        [{"sequence": "AC", "te": 1, "half life": 2, "note": 3}], "x", {}, ["te", "half life", "absent"]
    )
    assert names == {"sequence": "sequence", "functional_te": "te", "functional_half life": "half life"}
    assert (
        resolve_columns([{"sequence": "AC", "mrl": 1}], "x", {}, ["functional_mrl"])["functional_mrl"]
        == "mrl"
    )


def test_a_column_that_is_mapped_is_not_mapped_twice() -> None:
    names = resolve_columns([{"sequence": "AC", "te": 1, "te_old": 2}], "x", {"te": "te_old"}, ["te"])
    assert names["functional_te"] == "te_old"


def test_a_misspelt_property_is_told_its_neighbour(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        resolve_columns([{"sequence": "AC", "te_hek293": 1}], "x.csv", {}, ["te_hek29"])
    assert "x.csv: no column 'te_hek29'. Did you mean 'te_hek293'?" in caplog.text


def test_parameters_take_own_names() -> None:
    made = CausalParameters.model_validate(
        {"target": "te", "probe": {}, "pairs": {}, "effects": {}, "acdc": {"taus": [0.1]}, "curves": {}}
    )
    assert made.target == "functional_te"
    assert CorrelationParameters.model_validate({"properties": ["te"], "concepts": {}}).properties == [
        "functional_te"
    ]


def test_what_a_file_does_not_say_is_named() -> None:
    def of(**columns: object) -> list[str]:
        rows = [{"sequence": "ACGUACGU", **columns}, {"sequence": "ACAUACGU", **columns}]
        records = [RawRecord("x", f"record {i}", row) for i, row in enumerate(rows)]
        return [found.what for found in absences(build_table(RawRecords(records, []))[0])]

    assert of() == ["measured properties", "start codons"]
    assert of(functional_te=2, cds_start=3) == ["measured properties that vary (te: the same everywhere)"]
