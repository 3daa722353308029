"""Designed edits of a user's sequences: what changes, what must not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.causal.edits import OWN_KINDS, STANDARD_KINDS, design_pairs
from helix_sae.causal.pairs import designed_pairs
from helix_sae.errors import DataError
from helix_sae.mrna.simulator import simulate_transcripts
from helix_sae.mrna.tables import GENETIC_CODE


@pytest.fixture(scope="module")
def table():
    frame = simulate_transcripts(60, np.random.default_rng(0))
    return frame.assign(cluster=frame["family"].astype(str), sequence_id=[str(i) for i in range(len(frame))])


@pytest.fixture(scope="module")
def designed(table):
    return design_pairs(table, n_per_kind=8, motifs={"pum": "UGUANAUA", "are": "AUUUA"})


def protein(sequence: str, start: int, end: int) -> str:
    return "".join(GENETIC_CODE[sequence[i : i + 3]] for i in range(start, end - 3, 3))


def gc(sequence: str) -> int:
    return sum(letter in "GC" for letter in sequence)


def test_every_kind_is_there_with_shams(designed):
    kinds = set(designed["kind"])
    assert {*STANDARD_KINDS, *OWN_KINDS, "motif_are"} <= kinds
    for kind in OWN_KINDS:
        part = designed[designed["kind"] == kind]
        assert (part["role"] == "sham").any()
    shams = designed[designed["role"] == "sham"]
    assert shams["matched_pair"].isin(designed["pair_id"]).all()
    assert (shams["source"] != shams["target"]).all()


def test_length_and_gc_stay(designed):
    for row in designed.itertuples():
        assert len(row.source) == len(row.target)
        assert gc(row.source) == gc(row.target)


def test_recoding_keeps_the_protein_and_the_sham_also_the_codons(designed):
    part = designed[designed["kind"] == "synonymous_recoding"]
    assert len(part) >= 8
    for row in part.itertuples():
        assert protein(row.source, row.cds_start, row.cds_end) == protein(
            row.target, row.cds_start, row.cds_end
        )
        if row.role == "sham":
            codons = [
                sorted(s[i : i + 3] for i in range(row.cds_start, row.cds_end - 2, 3))
                for s in (row.source, row.target)
            ]
            assert codons[0] == codons[1]
            assert row.true_difference_mrl == 0.0


def test_plus4_loses_its_guanine(designed):
    part = designed[(designed["kind"] == "main_kozak_plus4")]
    for row in part.itertuples():
        at = row.cds_start + 3
        assert row.source[at] == "G"
        assert (row.target[at] == "C") == (row.role == "effect")
    assert (part.loc[part["role"] == "effect", "true_difference_mrl"] != 0).all()


def test_motifs_are_knocked_out_and_shams_leave_them(designed):
    part = designed[designed["kind"] == "motif_are"]
    assert len(part) > 8
    for row in part.itertuples():
        count = [sum(s.startswith("AUUUA", i) for i in range(len(s))) for s in (row.source, row.target)]
        assert (count[1] < count[0]) if row.role == "effect" else (count[1] == count[0])
    assert part["true_difference_mrl"].isna().all()


def test_designs_become_pairs_labelled_as_expectations(designed):
    splits = pd.Series(["discovery"] * len(designed))
    pairs = designed_pairs(designed, "functional_mrl", splits=splits, difference_kind="expected")
    assert (pairs.table["difference_kind"] == "expected").all()
    assert (
        pairs.counts()["functional_mrl not defined for the pair"]
        == (designed["kind"].str.startswith("motif")).sum()
    )


def test_same_seed_same_designs(table, designed):
    again = design_pairs(table, n_per_kind=8, motifs={"pum": "UGUANAUA", "are": "AUUUA"})
    pd.testing.assert_frame_equal(again, designed)


def test_bad_kinds_and_motifs_are_errors(table):
    with pytest.raises(DataError, match="frameshift"):
        design_pairs(table, kinds=["frameshift"])
    with pytest.raises(DataError, match="'X'"):
        design_pairs(table, kinds=[], motifs={"odd": "AXA"})


@given(st.lists(st.text("ACGUN", min_size=1, max_size=40), min_size=1, max_size=5))
def test_any_sequences_without_a_coding_region_are_taken(sequences):
    table = pd.DataFrame(
        {
            "sequence": sequences,
            "cluster": "c",
            "cds_start": pd.array([pd.NA] * len(sequences), "Int64"),
            "cds_end": pd.array([pd.NA] * len(sequences), "Int64"),
        }
    )
    made = design_pairs(table, kinds=["main_kozak_plus4"], motifs={"a": "AA"})
    for row in made.itertuples():
        assert row.source in sequences
        assert len(row.source) == len(row.target)
