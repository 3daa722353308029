"""Simulated tables as records of the raw schema, and back through the reader."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from helix_sae.errors import ConfigurationError
from helix_sae.mrna.export import to_records
from helix_sae.mrna.readers import read_sequences
from helix_sae.mrna.records import build_table
from helix_sae.mrna.simulator import simulate_constructs, simulate_transcripts


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    return pd.concat([simulate_constructs(40, rng), simulate_transcripts(40, rng)], ignore_index=True)


def test_schema(frame):
    records = to_records(frame, np.random.default_rng(1))
    assert json.loads(json.dumps(records)) == records
    construct, transcript = records[0], records[-1]
    assert set(construct) == {"sequence", "annotations", "metadata"}
    assert set(construct["annotations"]) == {"functional", "structural", "regulatory"}
    assert set(construct["sequence"]) <= set("ACGT")
    assert construct["metadata"]["data_type"] == "construct"
    assert "cds_end" not in construct["metadata"]
    assert "codon_usage" not in construct["annotations"]["regulatory"]
    assert transcript["metadata"]["data_type"] == "transcript"
    assert sum(transcript["annotations"]["regulatory"]["codon_usage"].values()) == pytest.approx(1, abs=0.01)
    assert construct["annotations"]["structural"]["length"] == len(construct["sequence"])


def test_missing_labels_are_absent_and_no_truth_leaks(frame):
    records = to_records(frame, np.random.default_rng(1), missing_fraction=0.3)
    labels = [record["annotations"]["functional"] for record in records]
    assert np.mean(["mrl" in label for label in labels]) == pytest.approx(0.7, abs=0.15)
    assert not any("te" in label for label in labels[:40])
    assert all(value != 0 for label in labels for value in label.values())
    assert {name for label in labels for name in label} == {"mrl", "te", "expression_level", "half_life"}


def test_nothing_missing_on_request(frame):
    records = to_records(frame, np.random.default_rng(1), missing_fraction=0.0)
    assert all("mrl" in record["annotations"]["functional"] for record in records)
    with pytest.raises(ConfigurationError):
        to_records(frame, np.random.default_rng(1), missing_fraction=1.0)


def test_round_trip_through_the_reader(frame, tmp_path):
    path = tmp_path / "mRNA_dataset_chunk_0000.json"
    path.write_text(json.dumps(to_records(frame, np.random.default_rng(1), missing_fraction=0.0)))
    table, rejected = build_table(read_sequences(str(path)))
    assert rejected.empty
    assert table["sequence"].tolist() == frame["sequence"].tolist()
    assert table["cds_start"].tolist() == frame["cds_start"].tolist()
    assert table["cds_end"].isna().tolist() == frame["cds_end"].isna().tolist()
    assert table["cluster"].tolist() == frame["family"].tolist()
    np.testing.assert_allclose(table["functional_mrl"], frame["mrl"], atol=1e-6)
    assert table["functional_te"].isna().sum() == 40
