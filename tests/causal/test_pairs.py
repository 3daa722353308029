"""Pairs: what is found, what is left out and why, and which token stands for which."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from helix_sae.causal.alignment import align_nucleotides, align_table, align_tokens, patched_rows
from helix_sae.causal.pairs import (
    PAIR_COLUMNS,
    PairBounds,
    designed_pairs,
    edit_positions,
    named_pairs,
    natural_pairs,
    neighbours,
)
from helix_sae.errors import AnalysisError, DataError
from helix_sae.mrna.counterfactuals import counterfactual_pairs
from helix_sae.mrna.simulator import simulate_constructs
from helix_sae.mrna.tokens import tokenize

RNA = st.text("ACGU", min_size=1, max_size=30)


def table_of(*rows: tuple) -> pd.DataFrame:
    """``(id, sequence, cluster, value, mother, reads)`` to an mRNA table."""
    frame = pd.DataFrame(
        rows, columns=["sequence_id", "sequence", "cluster", "functional_mrl", "mother", "reads"]
    )
    return frame.assign(
        cds_start=pd.array([pd.NA] * len(frame), "Int64"), cds_end=pd.array([pd.NA] * len(frame), "Int64")
    )


FAMILY = table_of(
    ("a", "ACGUACGUAC", "one", 1.0, None, 100.0),
    ("b", "ACGUACGUAA", "one", 3.0, "a", 100.0),
    ("c", "ACGUACGUAC", "one", 2.0, "a", 100.0),
    ("d", "ACGUACGUA", "one", 1.1, "a", 100.0),
    ("e", "UUUUUUUUUU", "one", 9.0, "a", 100.0),
    ("f", "ACGUACGUAG", "one", float("nan"), "a", 100.0),
    ("g", "ACGUACGUAU", "one", 5.0, "a", 3.0),
    ("h", "ACGUACGUGC", "two", 6.0, "a", 100.0),
    ("i", "ACGUACGCAC", "one", 7.0, "gone", 100.0),
)
SPLITS = pd.Series(["discovery" if c == "one" else "validation" for c in FAMILY["cluster"]])


def test_named_pairs_give_a_reason_for_every_candidate_that_is_left_out():
    bounds = PairBounds(None, 0.5, 1.2, 3, 10)
    pairs = named_pairs(FAMILY, "functional_mrl", bounds, splits=SPLITS, reads="reads")
    assert pairs.table["target_id"].tolist() == ["b"]
    reasons = pairs.exclusions.set_index("target_id")["reason"].to_dict()
    assert reasons == {
        "i": "mother not in the table",
        "c": "identical sequences",
        "f": "functional_mrl missing",
        "e": "more edits than max_edit_distance",
        "d": "below min_target_diff",
        "h": "straddles the split",
        "g": "below min_reads",
    }
    row = pairs.table.iloc[0]
    assert tuple(pairs.table.columns) == PAIR_COLUMNS
    assert (row["difference"], row["edit_positions"], row["split"]) == (2.0, [9], "discovery")


def test_pairs_of_unequal_length_are_kept_and_marked():
    pairs = named_pairs(FAMILY, "functional_mrl", PairBounds(None, 0.0, 1.2, 3), splits=SPLITS)
    assert pairs.table.set_index("target_id")["has_indel"].to_dict()["d"]
    short = named_pairs(FAMILY, "functional_mrl", PairBounds(None, 0.0, 1.05, 3), splits=SPLITS)
    assert short.counts()["longer than max_length_ratio allows"] == 1


def test_natural_pairs_are_the_near_ones():
    pairs = natural_pairs(FAMILY, "functional_mrl", PairBounds(None, 1.0, 1.2, 1), splits=SPLITS)
    found = set(zip(pairs.table["source_id"], pairs.table["target_id"], strict=True))
    assert ("a", "b") in found
    assert not any("e" in pair for pair in found)
    assert len(pairs.table) + len(pairs.exclusions) == len(
        list(neighbours(FAMILY["sequence"].tolist(), PairBounds(None, 0, 1.2, 1)))
    )


@given(st.lists(RNA, min_size=2, max_size=12), st.integers(1, 4), st.sampled_from([1.0, 1.3, 2.0]))
def test_neighbours_are_all_pairs_within_the_bounds(sequences, limit, ratio):
    bounds = PairBounds(None, 0.0, ratio, limit)
    expected = {
        (i, j)
        for i in range(len(sequences))
        for j in range(i + 1, len(sequences))
        if Levenshtein.distance(sequences[i], sequences[j]) <= limit
        and max(len(sequences[i]), len(sequences[j])) <= ratio * min(len(sequences[i]), len(sequences[j]))
    }
    found = list(neighbours(sequences, bounds))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_the_draw_is_seeded_and_counted():
    frame = simulate_constructs(40, np.random.default_rng(0), n_per_family=4)
    table = frame.assign(
        sequence_id=[str(i) for i in range(len(frame))],
        cluster=frame["family"].astype(str),
        functional_mrl=frame["mrl"],
    )
    splits = pd.Series(["discovery"] * len(table))
    bounds = PairBounds(5, 0.0, 1.5, 12)
    first, again = (natural_pairs(table, "functional_mrl", bounds, splits=splits, seed=4) for _ in range(2))
    assert len(first.table) == 5
    assert first.table.equals(again.table)
    assert first.counts()["beyond num_sequence_pairs"] > 0
    assert set(first.table["cluster"]) <= set(table["cluster"])


def test_what_is_missing_is_named():
    with pytest.raises(AnalysisError, match="functional_te"):
        natural_pairs(FAMILY, "functional_te", PairBounds(), splits=SPLITS)
    with pytest.raises(AnalysisError, match="wildtype"):
        named_pairs(FAMILY, "functional_mrl", PairBounds(), splits=SPLITS, parent="wildtype")
    with pytest.raises(DataError, match="min_reads"):
        natural_pairs(FAMILY, "functional_mrl", PairBounds(min_reads=3), splits=SPLITS)
    with pytest.raises(AnalysisError, match="below min_target_diff"):
        named_pairs(FAMILY, "functional_mrl", PairBounds(min_target_diff=100.0), splits=SPLITS)


def test_simulated_counterfactuals_fit_the_schema():
    rng = np.random.default_rng(0)
    made = counterfactual_pairs(
        simulate_constructs(200, rng), rng, n_per_kind=6, kinds=["uaug_make", "cpg_transposition"]
    )
    splits = pd.Series(["discovery", "validation"] * len(made))[: len(made)]
    pairs = designed_pairs(made, "functional_mrl", splits=splits)
    assert tuple(pairs.table.columns) == PAIR_COLUMNS
    assert set(pairs.table["role"]) == {"effect", "sham", "decoy"}
    effects, others = (
        pairs.table[pairs.table["role"] == "effect"],
        pairs.table[pairs.table["role"] != "effect"],
    )
    assert (effects["difference"] != 0).all()
    assert (others["difference"] == 0).all()
    made_positions = made.set_index("pair_id")["positions"]
    assert [made_positions[p] for p in pairs.table["pair_id"]] == pairs.table["edit_positions"].tolist()
    drawn = designed_pairs(made, "functional_mrl", splits=splits, num_sequence_pairs=9)
    assert drawn.table.groupby(["kind", "role"]).size().tolist() == [3, 3, 3]
    chosen = designed_pairs(made, "functional_mrl", splits=splits, kinds=["uaug_make"])
    assert chosen.counts()["kind not asked for"] == (made["kind"] != "uaug_make").sum()
    with pytest.raises(AnalysisError, match="not defined"):
        designed_pairs(made, "functional_half_life", splits=splits)
    with pytest.raises(DataError, match="lacks"):
        designed_pairs(made.drop(columns="kind"), "functional_mrl", splits=splits)


@given(RNA, RNA)
def test_alignment_is_monotone_and_never_worse_than_the_edit_distance_allows(a, b):
    left, right = align_nucleotides(a, b)
    assert (np.diff(left) > 0).all()
    assert (np.diff(right) > 0).all()
    assert len(left) <= min(len(a), len(b))
    if len(a) == len(b):
        assert left.tolist() == right.tolist() == list(range(len(a)))
    assert len(edit_positions(a, b)) <= max(len(a), len(b)) + 1


def test_an_insertion_shifts_the_columns_behind_it():
    left, right = align_nucleotides("ACGUACGUACGU", "ACGUAACGUACGU")
    assert dict(zip(left.tolist(), right.tolist(), strict=True))[11] == 12
    assert len(left) == 12


def test_markers_are_matched_where_both_have_one():
    a, b = "GGGAUGGCCUAA", "GGCAUGGCCUAA"
    pair = align_tokens(tokenize(a, 3, 12), tokenize(b, 3, 12), (a, b))
    assert len(pair.source_row) == 15
    assert pair.source_row.tolist() == pair.target_row.tolist()
    assert np.flatnonzero(pair.edited).tolist() == [2]
    assert pair.first == 2
    # Another reading frame: nucleotides still match, markers do not.
    moved = align_tokens(tokenize(a, 3, 12), tokenize(b, 4, 10), (a, b))
    assert moved.source.is_nucleotide[moved.source_row].all()
    assert len(moved.source_row) == 12


def test_rows_to_patch():
    a, b = "GGGAUGGCCUAA", "GGCAUGGCAUAA"
    pair = align_tokens(tokenize(a, 3, 12), tokenize(b, 3, 12), (a, b))
    assert pair.source_row[patched_rows(pair, "tokens")].tolist() == list(range(2, 15))
    assert pair.source.is_nucleotide[pair.source_row[patched_rows(pair, "nucleotides")]].all()
    assert pair.source.nucleotide[pair.source_row[patched_rows(pair, "edited")]].tolist() == [2, 8]
    back = pair.reversed()
    assert back.source is pair.target
    assert back.source_row.tolist() == pair.target_row.tolist()


@given(st.lists(st.tuples(RNA, RNA), min_size=1, max_size=4))
def test_tables_of_any_pairs_align(sequences):
    table = pd.DataFrame(sequences, columns=["source_sequence", "target_sequence"])
    for side in ("source", "target"):
        for name in ("cds_start", "cds_end"):
            table[f"{side}_{name}"] = pd.array([pd.NA] * len(table), "Int64")
    for pair, (a, b) in zip(align_table(table), sequences, strict=True):
        same = pair.source.ids[pair.source_row] == pair.target.ids[pair.target_row]
        assert (pair.edited == ~same).all()
        if a == b:
            assert pair.first == len(a)
            assert not patched_rows(pair, "tokens").any()
