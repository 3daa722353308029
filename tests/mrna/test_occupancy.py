"""Occupancy by upstream initiation against a walk codon by codon."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrna_oracles import STOPS, kozak, sigmoid

from helix_sae.errors import DataError
from helix_sae.mrna.mechanism import UAUG_INTERCEPT, UAUG_SLOPE
from helix_sae.mrna.occupancy import CHANNELS, upstream_occupancy

CODONS = st.lists(st.sampled_from(["AUG", "UAA", "UGA", "GCC", "A", "CU", "N", "ACGG"]), max_size=15).map(
    "".join
)


def twin(sequence: str, start: int) -> np.ndarray:
    tracks = np.zeros((len(sequence), len(CHANNELS)))
    for first in range(start - 2):
        if sequence[first : first + 3] != "AUG":
            continue
        share = sigmoid(UAUG_INTERCEPT + UAUG_SLOPE * kozak(sequence, first))
        codon = first
        while codon < len(sequence) and sequence[codon : codon + 3] not in STOPS:
            tracks[codon : codon + 3, 0] += share
            tracks[codon, 1] += share
            codon += 3
    return tracks


@given(st.lists(st.tuples(CODONS, st.floats(0, 1)), min_size=1, max_size=6))
def test_equals_the_walk(records: list[tuple[str, float]]):
    sequences = [sequence for sequence, _ in records]
    starts = [round(at * len(sequence)) for sequence, at in records]
    found = upstream_occupancy(sequences, starts)
    for sequence, start, tracks in zip(sequences, starts, found, strict=True):
        assert tracks.shape == (len(sequence), 2)
        assert tracks.dtype == np.float32
        assert (tracks >= 0).all()
        np.testing.assert_allclose(tracks, twin(sequence, start), atol=1e-5)


def test_a_contained_frame_ends_at_its_stop_and_an_open_one_runs_on():
    (contained,) = upstream_occupancy(["CCAUGGCCUAAGGGAUGGG"], [14])
    assert np.flatnonzero(contained[:, 0]).tolist() == list(range(2, 8))
    assert np.flatnonzero(contained[:, 1]).tolist() == [2, 5]
    (open_frame,) = upstream_occupancy(["CCAUGGCCGGG"], [8])
    assert np.flatnonzero(open_frame[:, 0]).tolist() == list(range(2, 11))
    assert np.flatnonzero(open_frame[:, 1]).tolist() == [2, 5, 8]


def test_without_upstream_starts_nothing_is_translated():
    found = upstream_occupancy(["CCCAUGGCC", "GGGG", ""], [3, 4, 0])
    assert [float(t.sum()) for t in found] == [0.0, 0.0, 0.0]
    assert [len(t) for t in found] == [9, 4, 0]


def test_a_start_outside_its_sequence_is_refused():
    with pytest.raises(DataError, match="record 0"):
        upstream_occupancy(["ACGU"], [5])
