"""Sequence-level properties against plain twins; what is not known stays missing."""

from __future__ import annotations

import math

import mrna_oracles as oracle
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna import structure
from helix_sae.mrna.properties import codon_usage, compute_properties
from helix_sae.mrna.simulator import simulate_constructs, simulate_transcripts
from helix_sae.mrna.tables import CODON_STABILITY, CODON_USAGE, CODONS, GENETIC_CODE, MIRNA_SEEDS


def table_of(*rows):
    sequences, starts, ends = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(len(rows))],
            "sequence": sequences,
            "cds_start": pd.array(starts, dtype="Int64"),
            "cds_end": pd.array(ends, dtype="Int64"),
        }
    )


@st.composite
def transcripts(draw):
    words = st.sampled_from(
        ["AUG", "UAA", "A", "C", "G", "U", "N", "AUUUA", "UUAUUUAUA", "CUACCUCA", "CUG", "AUA"]
    )
    utr5, body, utr3 = ("".join(draw(st.lists(words, max_size=8))) for _ in range(3))
    body = body[: len(body) // 3 * 3]
    sequence = utr5 + body + utr3
    return sequence, len(utr5), len(utr5) + len(body)


def plain(sequence, start, end):
    """The properties of one whole transcript, by the definitions."""
    found = oracle.upstream_augs(sequence, start)
    orfs = oracle.upstream_orfs(sequence, start)
    codons = [c for c in oracle.codons(sequence, start, end) if "N" not in c]
    stability = [CODON_STABILITY[c] for c in codons if c in CODON_STABILITY]
    logs = []
    for codon in codons:
        family = [c for c in CODON_USAGE if GENETIC_CODE[c] == GENETIC_CODE[codon]]
        if GENETIC_CODE[codon] != "*" and len(family) > 1:
            logs.append(math.log(CODON_USAGE[codon] / max(CODON_USAGE[c] for c in family)))
    third = "".join(c[2] for c in oracle.codons(sequence, start, end))
    utr3 = sequence[end:]
    kinds = [kind for _, kind, _ in found]
    return {
        "structural_length": len(sequence),
        "structural_gc_content": oracle.gc(sequence),
        "structural_length_5utr": start,
        "structural_gc_5utr": oracle.gc(sequence[:start]),
        "structural_length_cds": end - start,
        "structural_gc_cds": oracle.gc(sequence[start:end]),
        "structural_length_3utr": len(utr3),
        "structural_gc_3utr": oracle.gc(utr3),
        "structural_gc3": oracle.gc(third),
        "regulatory_uaug_count": len(found),
        "regulatory_uaug_overlapping_count": kinds.count("overlapping"),
        "regulatory_uaug_contained_count": kinds.count("contained"),
        "regulatory_uaug_in_frame_count": kinds.count("in_frame"),
        "regulatory_uorf_count": len(orfs),
        "regulatory_uorf_contained_count": sum(contained for _, _, contained in orfs),
        "regulatory_uorf_overlapping_count": sum(not contained for _, _, contained in orfs),
        "regulatory_kozak_score": oracle.kozak(sequence, start),
        "regulatory_codon_adaptation": math.exp(sum(logs) / len(logs)) if logs else None,
        "regulatory_csc": sum(stability) / len(stability) if stability else None,
        "regulatory_are_count": oracle.count("AUUUA", utr3),
        "regulatory_are_nonamer_count": oracle.count("UUAUUUA[AU][AU]", utr3),
        "regulatory_mirna_site_count": sum(
            oracle.count(oracle.mirna_site(s), utr3) for s in MIRNA_SEEDS.values()
        ),
    }


@given(st.lists(transcripts().filter(lambda row: row[0]), min_size=1, max_size=4))
@settings(max_examples=100)
def test_properties_against_the_plain_twin(rows):
    found = compute_properties(table_of(*rows))
    for index, row in enumerate(rows):
        expected = plain(*row)
        assert set(expected) == set(found.columns)
        for name, value in expected.items():
            got = found[name].iloc[index]
            assert np.isnan(got) if value is None else got == pytest.approx(value, abs=1e-9), name


def test_without_a_coding_start_nothing_regional_is_known():
    found = compute_properties(table_of(("AUGAUGAUUUAAC", None, None))).iloc[0]
    known = ["structural_length", "structural_gc_content"]
    assert found[known].notna().all()
    assert found.drop(known).isna().all()


def test_without_a_coding_end_the_5utr_is_known_and_the_rest_is_not():
    found = compute_properties(table_of(("CCAUGCAUGGGCGAA", 6, None))).iloc[0]
    assert found["regulatory_uaug_count"] == 1
    assert found["structural_length_5utr"] == 6
    unknown = [
        "structural_gc_cds",
        "structural_length_3utr",
        "regulatory_csc",
        "regulatory_are_count",
        "structural_gc3",
    ]
    assert found[unknown].isna().all()


def test_a_bare_5utr():
    found = compute_properties(table_of(("CCAUGC", 6, None))).iloc[0]
    assert found["regulatory_uaug_overlapping_count"] == 1
    assert found["regulatory_kozak_score"] == pytest.approx(oracle.kozak("CCAUGC", 6))


def test_nested_augs_are_one_uorf():
    sequence = "AUGAUGUAACCC" + "AUGGGC"
    found = compute_properties(table_of((sequence, 12, None))).iloc[0]
    assert found["regulatory_uaug_count"] == 2
    assert found["regulatory_uorf_count"] == 1


def test_the_index_of_the_table_is_kept():
    table = table_of(("ACGU", None, None), ("GGGU", None, None)).set_index(pd.Index([7, 3]))
    assert compute_properties(table).index.tolist() == [7, 3]


@pytest.mark.parametrize(("start", "end"), [(9, None), (2, 9), (3, 2), (None, 3), (-1, None)])
def test_impossible_coordinates_name_the_record(start, end):
    with pytest.raises(DataError, match="record s0"):
        compute_properties(table_of(("ACGUAC", start, end)))


def test_codon_usage():
    rows = [("CAUGGCCGCCUGA", 1, 13), ("AUGGCCNNN", 0, 9), ("CAUGGCC", 1, None)]
    found = codon_usage(table_of(*rows))
    assert found.columns.tolist() == [f"regulatory_codon_usage_{codon}" for codon in CODONS]
    assert found["regulatory_codon_usage_GCC"].tolist()[:2] == [0.5, 0.5]
    assert found.iloc[:2].sum(axis=1).tolist() == pytest.approx([1, 1])
    assert found.iloc[2].isna().all()


def test_free_energy_when_viennarna_is_there():
    if not structure.viennarna_available():
        pytest.skip("ViennaRNA is not installed")
    found = compute_properties(
        table_of(("GGGGGGAAAACCCCCC", None, None), ("AAAAAAAA", None, None)), with_mfe=True
    )
    assert found["structural_mfe"].iloc[0] < -5
    assert found["structural_mfe"].iloc[1] == 0
    assert structure.fold([""])[0].mfe == 0


def test_free_energy_without_viennarna(monkeypatch):
    monkeypatch.setattr(structure, "viennarna_available", lambda: False)
    with pytest.raises(ConfigurationError, match="ViennaRNA is not installed"):
        compute_properties(table_of(("ACGU", None, None)), with_mfe=True)


def test_simulated_phenotypes_follow_their_properties():
    """The property columns are the causes: uAUGs lower the load, stable codons lengthen the half-life."""
    rng = np.random.default_rng(0)
    table = pd.concat(
        [simulate_transcripts(500, rng, n_per_family=1), simulate_constructs(500, rng)], ignore_index=True
    )
    found = compute_properties(table)
    assert table["mrl_true"].corr(found["regulatory_uaug_overlapping_count"], method="spearman") < -0.3
    assert table["half_life_true"].corr(found["regulatory_csc"], method="spearman") > 0.5
