"""Flat encoding, motifs and compositions."""

from __future__ import annotations

import re

import mrna_oracles as oracle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import DataError
from helix_sae.mrna.encoding import (
    IUPAC,
    count_motif,
    decode,
    encode,
    find_motif,
    gc_fraction,
    parse_motif,
    reverse_complement,
)

batches = st.lists(st.text("ACGUN", max_size=30), min_size=1, max_size=6)


@given(batches)
def test_decode_inverts_encode(sequences):
    assert decode(encode(sequences)) == sequences


def test_dna_reads_as_rna():
    assert decode(encode(["ATTG"])) == ["AUUG"]


def test_positions_and_records():
    flat = encode(["AC", "", "GUN"])
    assert flat.record.tolist() == [0, 0, 2, 2, 2]
    assert flat.position.tolist() == [0, 1, 0, 1, 2]
    assert flat.lengths.tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("sequences", "where"), [(["ACG", "AxG"], "record 1.*'x' at position 1"), (["é"], "record 0")]
)
def test_bad_letter_is_named(sequences, where):
    with pytest.raises(DataError, match=where):
        encode(sequences)


@given(batches, st.text("".join(IUPAC), min_size=1, max_size=5))
def test_motifs_against_regular_expressions(sequences, pattern):
    flat = encode(sequences)
    expression = "(?=" + "".join(f"[{IUPAC[letter]}]" for letter in pattern) + ")"
    expected = [
        int(first) + match.start()
        for first, sequence in zip(flat.offsets[:-1], sequences, strict=True)
        for match in re.finditer(expression, sequence)
    ]
    assert find_motif(flat, parse_motif(pattern)).tolist() == expected


@given(batches, st.text("ACGU", min_size=1, max_size=3), st.data())
def test_count_within_bounds(sequences, motif, data):
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, len(s))] * 2))) for s in sequences]
    start, end = np.array(bounds).T
    expected = [oracle.count(motif, s[a:b]) for s, (a, b) in zip(sequences, bounds, strict=True)]
    assert count_motif(encode(sequences), parse_motif(motif), start, end).tolist() == expected


@given(batches, st.data())
def test_gc_fraction(sequences, data):
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, len(s))] * 2))) for s in sequences]
    start, end = np.array(bounds).T
    found = gc_fraction(encode(sequences), start, end)
    for value, sequence, (a, b) in zip(found, sequences, bounds, strict=True):
        expected = oracle.gc(sequence[a:b])
        assert np.isnan(value) if expected is None else value == pytest.approx(expected)


@pytest.mark.parametrize("pattern", ["", "AUX", "A-U"])
def test_motif_must_be_iupac(pattern):
    with pytest.raises(DataError, match="motif"):
        parse_motif(pattern)


def test_reverse_complement():
    assert reverse_complement("GAGGUAGN") == "NCUACCUC"
