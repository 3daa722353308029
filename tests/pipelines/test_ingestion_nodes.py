"""What the ingestion does with user concepts and with input that is not what it should be."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from helix_sae.errors import DataError
from helix_sae.mrna.intervals import interval_table
from helix_sae.mrna.records import RawRecord, RawRecords
from helix_sae.pipelines.ingestion.nodes import annotate, tabulate
from helix_sae.pipelines.ingestion.parameters import IngestionParameters
from helix_sae.reporting.sections import ModelFacts, data_section

SPLIT = {"discovery": 0.5, "validation": 0.5}


def parameters(**more: Any) -> IngestionParameters:
    return IngestionParameters.model_validate({"split": SPLIT, "cluster_by": "none", **more})


def records(*rows: dict[str, Any]) -> RawRecords:
    """The rows, and enough others for both parts of the split."""
    others = [{"sequence_id": f"other{i}", "sequence": "ACGUACGU"} for i in range(8)]
    return RawRecords(
        [RawRecord("in.csv", f"line {i + 2}", row) for i, row in enumerate([*rows, *others])], []
    )


GOOD = {"sequence_id": "good", "sequence": "CCAUGAAAUAAGG", "cds_start": 2, "cds_end": 11}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cds_end": 40}, r"cds_end: 40 is not in \(2, 13\]"),
        ({"cds_start": -1}, "cds_start: -1 is outside the sequence of 13 nt"),
        ({"cds_end": 10}, r"the coding region \[2, 10\) is not a multiple of three"),
        ({"cds_start": None}, "cds_end: is 11 while cds_start is missing"),
    ],
)
def test_a_coding_region_that_does_not_fit(change: dict[str, Any], reason: str) -> None:
    raw = records(GOOD, {**GOOD, "sequence_id": "bad", **change})
    with pytest.raises(DataError, match=r"in\.csv.*line 3.*" + reason):
        tabulate(raw, parameters())
    table, rejected = tabulate(raw, parameters(on_bad_record="set_aside"))
    assert table["sequence_id"].tolist()[0] == "good"
    assert len(table) == 9
    assert rejected["record"].tolist() == ["line 3"]


def test_doubtful_coding_regions_are_named_in_log_and_report(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table, rejected = tabulate(
            records(GOOD, {**GOOD, "sequence_id": "odd", "sequence": "CCCUGUAACCCGG"}), parameters()
        )
    said = "\n".join(caplog.messages)
    for doubt in ("does not start with AUG", "does not end in a stop codon", "has a stop codon in frame"):
        assert f"{doubt}" in said
    assert "odd the first" in said
    model = ModelFacts("helix_mini", "f" * 64, "cds", {"layers.0.mixer": 8}, 10, 90)
    warnings = data_section(table, rejected, model).warnings
    doubts = [text for text in warnings if "in 1 record (odd)" in text]
    assert len(doubts) == 3
    absent = [text for text in warnings if text not in doubts]
    assert [text.split(":")[1].strip() for text in absent] == ["measured properties"]


def test_motifs_and_intervals_from_parameters() -> None:
    table, _ = tabulate(records(GOOD), parameters())
    motif = {"name": "m6A", "pattern": "RRACH", "region": "cds"}
    intervals = interval_table([("good", 0, 2, "clip"), ("good", 1, 3, "clip")])
    found = annotate(table, intervals, parameters(motifs=[motif, {"name": "first", "pattern": "cca"}]))
    assert not found.column("m6A").any()
    assert np.flatnonzero(found.column("first")).tolist() == [0, 1, 2]
    assert np.flatnonzero(found.column("clip")).tolist() == [0, 1, 2]
    assert len(found.instances("clip").start) == 2, "instances may overlap"


@pytest.mark.parametrize(
    ("motif", "message"),
    [
        ({"name": "x", "pattern": "AUX"}, r"motif 'AUX' has the letter\(s\) X, which are not IUPAC"),
        ({"name": "x", "pattern": ""}, "motif '' is empty"),
        ({"name": "x", "pattern": "AUG", "region": "intron"}, "'any', 'utr5', 'cds' or 'utr3'"),
        ({"name": "x", "pattern": "AUG", "strand": "+"}, "Extra inputs"),
    ],
)
def test_a_mistaken_motif_is_refused_with_the_parameters(motif: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parameters(motifs=[motif])


def test_names_of_concepts_must_differ() -> None:
    table, _ = tabulate(records(GOOD), parameters())
    with pytest.raises(DataError, match="'cds' exists already"):
        annotate(table, interval_table([("good", 0, 2, "cds")]), parameters())


def test_intervals_of_other_sequences(caplog: pytest.LogCaptureFixture) -> None:
    table, _ = tabulate(records(GOOD), parameters())
    with pytest.raises(DataError, match=r"None of the 1 intervals.*'absent'.*sequence_id"):
        annotate(table, interval_table([("absent", 0, 2, "clip")]), parameters())
    with caplog.at_level(logging.WARNING):
        annotate(table, interval_table([("absent", 0, 2, "clip"), ("good", 0, 2, "clip")]), parameters())
    assert "1 of 2 intervals are of sequences that the mRNA table does not hold" in caplog.text
    with pytest.raises(DataError, match=r"clip of good.*does not lie in a sequence of 13 nt"):
        annotate(table, interval_table([("good", 10, 20, "clip")]), parameters())


def test_a_table_without_coding_regions_has_no_doubts() -> None:
    table, _ = tabulate(records({"sequence": "ACGU"}, {"sequence": "GGCC"}), parameters())
    assert isinstance(table, pd.DataFrame)
    assert table["cds_start"].isna().all()
