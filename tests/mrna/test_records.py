"""Records: each rule of the table, with the name of what breaks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from helix_sae.errors import ConfigurationError, DataError, HelixSaeError
from helix_sae.mrna.records import (
    FieldError,
    RawRecord,
    RawRecords,
    RejectedRecord,
    Reporter,
    build_table,
    flatten_record,
    normalise_sequence,
    validate_table,
)

SEQUENCE = "ACGAUGGGCUAAACG"


def raw(*rows: dict[str, Any], file: str = "folder/input.csv") -> RawRecords:
    return RawRecords([RawRecord(file, f"record {i}", row) for i, row in enumerate(rows)], [])


def only_rejected(row: dict[str, Any], **options: Any) -> RejectedRecord:
    """Build with one good record beside the bad one; return what is said of the bad one."""
    table, rejected = build_table(raw({"sequence": SEQUENCE}, row), on_bad_record="set_aside", **options)
    assert len(table) == 1
    assert len(rejected) == 1
    return RejectedRecord(*rejected.iloc[0])


def test_dna_becomes_rna() -> None:
    assert normalise_sequence(" acgTn\n") == "ACGUN"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("ACGR", r"letter 'R' at position 3"),
        ("AC-G", r"letter '-' at position 2"),
        ("", "missing or empty"),
        ("   ", "missing or empty"),
        ("NaN", "missing or empty"),
        (None, "missing or empty"),
        (float("nan"), "missing or empty"),
        (7, "is the number 7, not text"),
        (["A"], "is a list, not text"),
    ],
)
def test_sequences_that_are_none(value: object, reason: str) -> None:
    with pytest.raises(FieldError, match=reason):
        normalise_sequence(value)


@given(st.text())
def test_normalised_or_named_error(text: str) -> None:
    try:
        letters = normalise_sequence(text)
    except FieldError:
        return
    assert set(letters) <= set("ACGUN")


def test_json_record_is_flattened() -> None:
    record = {
        "sequence": "ACGT",
        "annotations": {
            "functional": {"mrl": 3.5, "te": None},
            "structural": {"gc_content": 0.5, "secondary_structure": "(..)"},
            "regulatory": {"codon_usage": {"ATG": 0.25, "uuu": 1}, "uaug_count": 2},
            "evolution": {"age": "old"},
        },
        "metadata": {"source": "lab", "cell_line": "HEK293T", "gene_id": "G1", "cds_start": 1},
    }
    assert flatten_record(record) == {
        "sequence": "ACGT",
        "functional_mrl": 3.5,
        "functional_te": None,
        "structural_gc_content": 0.5,
        "structural_secondary_structure": "(..)",
        "regulatory_codon_usage_AUG": 0.25,
        "regulatory_codon_usage_UUU": 1,
        "regulatory_uaug_count": 2,
        "metadata_evolution_age": "old",
        "source": "lab",
        "metadata_cell_line": "HEK293T",
        "metadata_gene_id": "G1",
        "cds_start": 1,
    }


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"annotations": []}, "annotations"),
        ({"annotations": {"functional": 3}}, "annotations.functional"),
        ({"annotations": {"functional": {"mrl": [1, 2]}}}, "functional_mrl"),
        ({"metadata": "x"}, "metadata"),
        ({"sequence": {"a": 1}}, "sequence"),
    ],
)
def test_records_of_another_shape(record: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        flatten_record(record)
    assert caught.value.field == field


def test_missing_labels_stay_missing() -> None:
    table, _ = build_table(
        raw(
            {"sequence": SEQUENCE, "functional_mrl": "0", "functional_te": "", "metadata_cell_line": "K562"},
            {"sequence": SEQUENCE, "functional_mrl": "NA", "functional_te": None},
        )
    )
    assert table["functional_mrl"].tolist()[0] == 0
    assert table["functional_mrl"].isna().tolist() == [False, True]
    assert table["functional_te"].isna().all()
    assert table["functional_te"].dtype == np.float64
    assert table["metadata_cell_line"].isna().tolist() == [False, True]


def test_columns_and_their_types() -> None:
    table, rejected = build_table(
        raw({"sequence": "acgt", "cds_start": 1, "cds_end": "4", "functional_class": "high", "reads": "12"})
    )
    assert list(table.columns) == [
        *(
            "sequence_id",
            "sequence",
            "cds_start",
            "cds_end",
            "source",
            "cluster",
            "reads",
            "functional_class",
        ),
    ]
    assert table["cds_start"].dtype == pd.Int64Dtype()
    assert isinstance(table["functional_class"].dtype, pd.CategoricalDtype)
    assert table["sequence_id"].tolist() == ["input_000000"]
    assert table["source"].tolist() == ["input"]
    assert rejected.empty
    assert list(rejected.columns) == ["file", "record", "field", "reason"]
    validate_table(table)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"sequence": "ACX"}, "sequence", "letter 'X'"),
        ({"cds_start": -1}, "cds_start", "outside the sequence of 15 nt"),
        ({"cds_start": 16}, "cds_start", "outside the sequence"),
        ({"cds_start": 3, "cds_end": 16}, "cds_end", "within the sequence"),
        ({"cds_start": 3, "cds_end": 3}, "cds_end", "after cds_start"),
        ({"cds_start": 15, "cds_end": 15}, "cds_end", "after cds_start"),
        ({"cds_start": 3, "cds_end": 13}, "cds_end", "not a multiple of three"),
        ({"cds_end": 12}, "cds_end", "while cds_start is missing"),
        ({"cds_start": "three"}, "cds_start", "not a whole number"),
        ({"cds_start": 2.5}, "cds_start", "not a whole number"),
        ({"cds_start": float("inf")}, "cds_start", "not a whole number"),
        ({"cds_start": True}, "cds_start", "not a whole number"),
        ({"cds_start": 10**400}, "cds_start", "not a whole number"),
        ({"reads": -4}, "reads", "not a number of reads"),
        ({"functional_mrl": "high"}, "functional_mrl", "not a finite number"),
        ({"functional_mrl": "inf"}, "functional_mrl", "not a finite number"),
        ({"functional_mrl": 10**400}, "functional_mrl", "not a finite number"),
        ({"functional_mrl": "1_000"}, "functional_mrl", "not a finite number"),
        ({"sequence_id": "input_000000"}, "sequence_id", "already the id of record 0"),
        ({"metadata_label": "\ud800"}, "metadata_label", "half a character"),
        ({"source": "\udfff"}, "source", "half a character"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], field: str, reason: str) -> None:
    rejected = only_rejected({"sequence": SEQUENCE, **fields})
    assert (rejected.file, rejected.record, rejected.field) == ("folder/input.csv", "record 1", field)
    assert reason in rejected.reason


@pytest.mark.parametrize(
    ("start", "end"), [(0, 15), (3, 12), (3, None), (15, None), (None, None), ("3.0", "12")]
)
def test_good_coding_regions(start: object, end: object) -> None:
    table, _ = build_table(raw({"sequence": SEQUENCE, "cds_start": start, "cds_end": end}))
    assert len(table) == 1


def test_one_error_lists_the_first_bad_records() -> None:
    rows = [{"sequence": SEQUENCE}] + [{"sequence": "X"}] * 7
    with pytest.raises(DataError) as caught:
        build_table(raw(*rows))
    message = str(caught.value)
    assert message.startswith("7 of 8 records cannot be used:")
    assert "folder/input.csv, record 1, sequence: letter 'X' at position 0" in message
    assert "and 2 more" in message
    assert "set_aside" in message


def test_places_that_no_reader_could_read_count_as_rejected() -> None:
    records = raw({"sequence": SEQUENCE})
    records.rejected.append(RejectedRecord("f", "line 3", "record", "2 fields where the header has 3"))
    with pytest.raises(DataError, match="line 3"):
        build_table(records)
    _, rejected = build_table(records, on_bad_record="set_aside")
    assert rejected["record"].tolist() == ["line 3"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match="1 of 1 records"):
        build_table(raw({"sequence": ""}), on_bad_record="set_aside")
    with pytest.raises(DataError, match="no record at all"):
        build_table(raw())


def test_column_mapping() -> None:
    row = {"utr": "ACGT", "mrl": "2.5", "reads": "7", "note": "x"}
    table, _ = build_table(raw(row), columns={"sequence": "utr", "functional_mrl": "mrl", "reads": None})
    assert table[["sequence", "functional_mrl"]].to_numpy().tolist() == [["ACGU", 2.5]]
    assert "reads" not in table
    assert "note" not in table
    with pytest.raises(DataError, match=r"'utr5' .*none of the records.*utr, mrl, reads, note"):
        build_table(raw(row), columns={"sequence": "utr5"})
    table, _ = build_table(raw(row), columns={"sequence": "utr", "mrl": "mrl"})
    assert table["functional_mrl"].tolist() == [2.5], (
        "a name without a prefix is that of a functional_ column"
    )
    with pytest.raises(ConfigurationError, match=r"Did you mean 'cds_start'\?"):
        build_table(raw(row), columns={"sequence": "utr", "cds_strat": "reads"})
    with pytest.raises(DataError, match="No column 'sequence'"):
        build_table(raw(row))


def test_a_mostly_numeric_column_names_its_misfits_and_a_worded_one_is_a_category() -> None:
    numbers = [{"sequence": SEQUENCE, "functional_x": v, "functional_y": v} for v in ("1", "2", "failed")]
    for row, word in zip(numbers, ("low", "high", "3"), strict=True):
        row["functional_y"] = word
    table, rejected = build_table(raw(*numbers), on_bad_record="set_aside")
    assert rejected["field"].tolist() == ["functional_x"]
    assert "as most values here are" in rejected["reason"].iloc[0]
    assert table["functional_y"].tolist() == ["low", "high"]


def test_metadata_numbers_are_names() -> None:
    table, _ = build_table(raw({"sequence": SEQUENCE, "metadata_gene_id": 7157.0, "metadata_good": True}))
    assert table["metadata_gene_id"].tolist() == ["7157"]
    assert table["metadata_good"].tolist() == ["true"]
    assert table["cluster"].tolist() == ["7157"]


def test_reporter_flanks_surround_a_bare_utr() -> None:
    reporter = Reporter(five_prime="gg", coding="ATGGGCGAA")
    table, _ = build_table(raw({"sequence": "ACGT"}), reporter=reporter)
    assert table["sequence"].tolist() == ["GGACGUAUGGGCGAA"]
    assert table["cds_start"].tolist() == [6]
    assert table["cds_end"].isna().all()
    assert only_rejected({"sequence": "ACGU", "cds_start": 1}, reporter=reporter).field == "cds_start"
    with pytest.raises(ValidationError, match="letter 'X'"):
        Reporter(coding="AXG")


def test_mothers_by_sequence() -> None:
    rng = np.random.default_rng(0)
    wild, other = ("".join(rng.choice(list("ACGT"), 40)) for _ in range(2))
    variant = "T" + wild[1:] if wild[0] != "T" else "A" + wild[1:]
    table, _ = build_table(
        raw(
            {"sequence": variant, "mother": wild},
            {"sequence": wild, "mother": wild.lower()},
            {"sequence": other, "mother": other[::-1]},
            {"sequence": "ACGU", "mother": other[::-1]},
            {"sequence": "GGGG"},
        ),
        reporter=Reporter(),
    )
    ids = table["sequence_id"].tolist()
    assert table["mother"].tolist() == [ids[1], ids[1], None, None, None]
    clusters = table["cluster"].tolist()
    assert clusters[0] == clusters[1] == ids[1]
    assert clusters[2] == clusters[3]
    assert len(set(clusters)) == 3


def test_mothers_by_id() -> None:
    table, _ = build_table(
        raw(
            {"sequence": "ACGU", "sequence_id": "wt"},
            {"sequence": "ACGA", "sequence_id": "v1", "mother": "wt"},
            {"sequence": "ACGG", "sequence_id": "v2", "mother": "absent_1"},
        )
    )
    assert table["mother"].tolist() == [None, "wt", None]
    assert table["cluster"].tolist() == ["wt", "wt", "absent_1"]


def test_cluster_by_a_column() -> None:
    rows = [{"sequence": SEQUENCE, "metadata_plate": plate} for plate in "ab"]
    table, _ = build_table(raw(*rows), cluster_by="metadata_plate")
    assert table["cluster"].tolist() == ["a", "b"]
    with pytest.raises(ConfigurationError, match="cluster_by"):
        build_table(raw(*rows), cluster_by="metadata_lane")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sequence": "ACT"}, "letter outside"),
        ({"cds_start": 99}, "cds_start outside"),
        ({"cds_end": 2}, "cds_end outside"),
        ({"cds_start": pd.NA}, "cds_end without"),
        ({"cds_end": 11}, "multiple of three"),
        ({"sequence_id": "b"}, "another row has"),
        ({"source": None}, "empty name"),
        ({"functional_mrl": np.inf}, "infinite functional_mrl"),
    ],
)
def test_validation_of_a_table(change: dict[str, Any], what: str) -> None:
    rows = [
        {"sequence": SEQUENCE, "sequence_id": i, "cds_start": 3, "cds_end": 12, "functional_mrl": 1}
        for i in "ab"
    ]
    table, _ = build_table(raw(*rows))
    validate_table(table)
    for name, value in change.items():
        table.loc[0, name] = value
    with pytest.raises(DataError, match=what):
        validate_table(table)


def test_validation_of_columns() -> None:
    table, _ = build_table(raw({"sequence": SEQUENCE}))
    with pytest.raises(DataError, match="lacks the column"):
        validate_table(table.drop(columns="source"))
    with pytest.raises(ConfigurationError, match="'mrl' cannot be a column"):
        validate_table(table.assign(mrl=1.0))
    with pytest.raises(DataError, match="no rows"):
        validate_table(table.iloc[:0])


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(
    [
        "sequence",
        "sequence_id",
        "cds_start",
        "cds_end",
        "source",
        "cluster",
        "mother",
        "reads",
        "functional_mrl",
        "functional_x",
        "metadata_gene_id",
        "other",
    ]
)


@settings(max_examples=150)
@given(
    st.lists(st.dictionaries(names, scalars | st.text("ACGTU", max_size=20), max_size=8), max_size=6),
    st.booleans(),
)
def test_any_records_give_a_valid_table_or_a_named_error(rows: list[dict[str, Any]], aside: bool) -> None:
    records = raw({"sequence": SEQUENCE}, *rows)
    try:
        table, rejected = build_table(records, on_bad_record="set_aside" if aside else "error")
    except HelixSaeError:
        assert not aside
        return
    validate_table(table)
    assert len(table) + len(rejected) >= len(records.records)
    assert set(rejected["record"]) | {f"record {i}" for i in range(len(records.records))} == {
        f"record {i}" for i in range(len(records.records))
    }
