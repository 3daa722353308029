"""Where features fire: every window is held against the sequence and the codes that it was cut from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import report_data
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from report_data import CODON, DEAD, GC, MARKER, NOISE, SITES, UAUG

from helix_sae.errors import DataError
from helix_sae.reporting.gathering import LaidOut
from helix_sae.reporting.windows import (
    BANDS,
    TRACKS,
    CodedCorpus,
    Firings,
    _bands,
    background,
    consensus,
    firings,
    information,
    letter_counts,
    region_track,
    sampled_firings,
    top_firings,
    window,
)

SITE = SITES[0]
FEATURES = (UAUG, CODON, GC, NOISE, DEAD, MARKER)


@pytest.fixture(scope="module")
def corpus() -> CodedCorpus:
    return report_data.corpus(SITE)


@pytest.fixture(scope="module")
def found(corpus: CodedCorpus) -> dict[int, object]:
    return dict(zip(FEATURES, firings(corpus, FEATURES), strict=True))


def by_hand(corpus: CodedCorpus, feature: int) -> list[tuple[int, int, float]]:
    """Sequence, nucleotide and activation of every active nucleotide, token by token."""
    dense = corpus.codes[:, [feature]].toarray().ravel()
    return [
        (i, int(corpus.nucleotide[row]), float(dense[row]))
        for i in range(len(corpus.table))
        for row in range(int(corpus.offsets[i]), int(corpus.offsets[i + 1]))
        if dense[row] > 0 and corpus.is_nucleotide[row]
    ]


@pytest.mark.parametrize("feature", FEATURES)
def test_firings_are_those_of_the_codes(corpus: CodedCorpus, found, feature: int):
    fired = found[feature]
    rows = list(zip(fired.sequence.tolist(), fired.position.tolist(), fired.activation.tolist(), strict=True))
    assert rows == by_hand(corpus, feature)
    assert fired.n_nucleotides == corpus.table["sequence"].str.len().sum()
    assert fired.density == pytest.approx(len(rows) / fired.n_nucleotides)


def test_the_share_of_markers(found):
    assert found[MARKER].marker_share == 1.0
    assert len(found[MARKER].activation) == 0
    assert found[UAUG].marker_share == 0.0
    assert np.isnan(found[DEAD].marker_share)


def test_a_negative_code_is_not_a_firing():
    table = pd.DataFrame({"sequence": ["ACGU"], "cds_start": [None], "cds_end": [None]})
    codes = scipy.sparse.csr_array(np.array([[-1.0], [0.0], [2.0], [0.0]]))
    corpus = CodedCorpus(table, codes, np.array([0, 4]), np.arange(4), np.ones(4, bool))
    assert firings(corpus, [0])[0].position.tolist() == [2]


@pytest.mark.parametrize("feature", [UAUG, CODON, GC, NOISE])
def test_the_strongest_come_from_different_families(corpus: CodedCorpus, found, feature: int):
    fired, clusters = found[feature], corpus.table["cluster"].to_numpy()
    chosen = top_firings(fired, clusters, 20)
    families = clusters[fired.sequence[chosen]]
    assert len(set(families)) == len(chosen) == min(20, len(set(clusters[fired.sequence])))
    assert (np.diff(fired.activation[chosen]) <= 0).all()
    best = pd.Series(fired.activation).groupby(clusters[fired.sequence]).max().nlargest(len(chosen))
    assert fired.activation[chosen] == pytest.approx(best.to_numpy())


@pytest.mark.parametrize("feature", [UAUG, CODON, NOISE])
def test_sampled_activations_lie_in_their_bands(corpus: CodedCorpus, found, feature: int):
    fired, clusters = found[feature], corpus.table["cluster"].to_numpy()
    used = top_firings(fired, clusters, 5)
    drawn = sampled_firings(fired, clusters, np.random.default_rng(0), used=used)
    assert [low for low, _ in drawn] == sorted(BANDS, reverse=True)[-len(drawn) :]
    families = [clusters[fired.sequence[i]] for i in [*used, *(index for _, index in drawn)]]
    assert len(set(families)) == len(families)
    upper = dict(zip(BANDS, [*BANDS[1:], 1.0], strict=True))
    for low, index in drawn:
        below = (fired.activation < fired.activation[index]).mean()
        up_to = (fired.activation <= fired.activation[index]).mean()
        assert below <= upper[low]
        assert up_to >= low
    again = sampled_firings(fired, clusters, np.random.default_rng(0), used=used)
    assert again == drawn


def test_nothing_is_drawn_where_nothing_fires(corpus: CodedCorpus, found):
    clusters = corpus.table["cluster"].to_numpy()
    assert sampled_firings(found[DEAD], clusters, np.random.default_rng(0)) == []
    assert len(top_firings(found[DEAD], clusters, 5)) == 0
    every = top_firings(found[UAUG], clusters, 10**6)
    assert sampled_firings(found[UAUG], clusters, np.random.default_rng(0), used=every) == []


@pytest.mark.parametrize("flank", [1, 10, 400])
def test_windows_are_cut_from_the_sequence(corpus: CodedCorpus, found, flank: int):
    fired = found[CODON]
    dense = {(s, p): a for s, p, a in by_hand(corpus, CODON)}
    for index in [0, 7, len(fired.activation) - 1]:
        made = window(corpus, fired, index, flank)
        record = corpus.table.iloc[made.sequence]
        assert made.sequence_id == record["sequence_id"]
        assert made.length == len(record["sequence"])
        stop = made.start + len(made.letters)
        assert made.letters == record["sequence"][made.start : stop]
        assert made.start == max(0, made.position - flank)
        assert stop == min(made.length, made.position + flank + 1)
        expected = [dense.get((made.sequence, p), 0.0) for p in range(made.start, stop)]
        assert made.activation.tolist() == pytest.approx(expected)
        assert made.peak == made.activation[made.position - made.start] == fired.activation[index]
        assert made.offset_from_start == made.position - record["cds_start"]
        end = None if pd.isna(record["cds_end"]) else int(record["cds_end"])
        track = region_track(record["sequence"], int(record["cds_start"]), end)
        assert made.track.tolist() == track[made.start : stop].tolist()


def test_a_window_of_an_unknown_coding_region():
    table = pd.DataFrame(
        {
            "sequence_id": ["a"],
            "sequence": ["ACGU"],
            "cds_start": pd.array([None], "Int64"),
            "cds_end": [pd.NA],
        }
    )
    codes = scipy.sparse.csr_array(np.eye(4, 1, dtype=np.float32))
    corpus = CodedCorpus(table, codes, np.array([0, 4]), np.arange(4), np.ones(4, bool))
    made = window(corpus, firings(corpus, [0])[0], 0, 3)
    assert made.offset_from_start is None
    assert set(made.track) == {TRACKS.index("unknown")}


def words(track: np.ndarray) -> list[str]:
    return [TRACKS[int(t)] for t in track]


def test_regions():
    #          0123456789012345678901
    sequence = "CAUGGCAUGAAACCCGUAAUUU"
    assert words(region_track(sequence, 6, 19)) == [
        "utr5", *["uaug"] * 3, *["utr5"] * 2, *["start"] * 3, *["codon_odd"] * 3, *["codon_even"] * 3,
        *["codon_odd"] * 1, *["stop"] * 3, *["utr3"] * 3,
    ]  # fmt: skip
    assert words(region_track(sequence, 6, None))[9:] == (["codon_odd"] * 3 + ["codon_even"] * 3) * 2 + [
        "codon_odd"
    ]
    assert set(words(region_track(sequence, None, None))) == {"unknown"}


@given(st.text("ACGUN", min_size=1, max_size=40), st.data())
def test_every_nucleotide_has_the_region_of_its_place(sequence: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(sequence)))
    end = data.draw(st.one_of(st.none(), st.integers(start, len(sequence))))
    track = words(region_track(sequence, start, end))
    stop = len(sequence) if end is None else end
    assert set(track[:start]) <= {"utr5", "uaug"}
    assert set(track[start:stop]) <= {"start", "codon_odd", "codon_even", "stop"}
    assert set(track[stop:]) <= {"utr3"}
    upstream = {p for i in range(start - 2) if sequence[i : i + 3] == "AUG" for p in range(i, i + 3)}
    assert {i for i, name in enumerate(track) if name == "uaug"} == upstream


def test_a_stop_codon_that_begins_before_the_coding_region_is_none_of_it():
    assert words(region_track("UAA", 1, 3)) == ["utr5", "start", "start"]


def test_letters_are_counted_around_activations(corpus: CodedCorpus, found):
    flank, fired = 4, found[UAUG]
    chosen = np.arange(len(fired.activation))
    counts = letter_counts(corpus, fired, chosen, flank)
    expected = np.zeros((2 * flank + 1, 4), dtype=int)
    for s, p, _ in by_hand(corpus, UAUG):
        sequence = corpus.table["sequence"].iloc[s]
        for place in range(-flank, flank + 1):
            if 0 <= p + place < len(sequence) and sequence[p + place] in "ACGU":
                expected[place + flank, "ACGU".index(sequence[p + place])] += 1
    assert np.array_equal(counts, expected)
    assert counts[flank - 2].argmax() == 0  # A, U and G end at the activation
    assert counts[flank - 2 : flank + 1].max(axis=1).tolist() == [len(chosen)] * 3
    assert letter_counts(corpus, fired, chosen[:0], flank).sum() == 0


def test_the_logo_of_a_motif_is_higher_than_that_of_nothing(corpus: CodedCorpus, found):
    base = background(corpus.table)
    assert base == pytest.approx(
        [corpus.table["sequence"].str.count(n).sum() / found[UAUG].n_nucleotides for n in "ACGU"]
    )
    flank = 6

    def heights(feature: int) -> np.ndarray:
        fired = found[feature]
        return information(letter_counts(corpus, fired, np.arange(len(fired.activation)), flank), base)

    motif, noise = heights(UAUG), heights(NOISE)
    assert motif[flank - 2 : flank + 1].sum(axis=1).min() > 1.5
    assert noise.sum(axis=1).max() < 0.05
    # The entropy of a letter that is always there, against its share of the corpus.
    n = len(found[UAUG].activation)
    share = (n + base[2]) / (n + 1)
    assert motif[flank].max() == pytest.approx(share * np.log2(share / base[2]), rel=0.05)


@given(st.lists(st.lists(st.integers(0, 400), min_size=4, max_size=4), min_size=1, max_size=5))
def test_heights_are_never_negative_and_few_counts_have_none(counts: list[list[int]]):
    base = np.array([0.3, 0.2, 0.5, 0.0])
    made = information(np.array(counts), base)
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    assert (made[np.array(counts).sum(axis=1) < 10] == 0).all()


def test_codes_and_tables_of_different_runs_are_told_apart(corpus: CodedCorpus):
    with pytest.raises(DataError, match="different runs"):
        CodedCorpus(corpus.table, corpus.codes[:-1], corpus.offsets, corpus.nucleotide, corpus.is_nucleotide)
    with pytest.raises(DataError, match="239 sequences in the table, 240 in the codes"):
        CodedCorpus(corpus.table[:-1], corpus.codes, corpus.offsets, corpus.nucleotide, corpus.is_nucleotide)


@pytest.mark.parametrize("flank", [0, 3, 40])
def test_windows_of_all_activations_at_once_are_those_one_by_one(corpus: CodedCorpus, found, flank: int):
    laid_out = LaidOut(corpus.table, 40)
    for feature in (UAUG, CODON, DEAD):
        fired = found[feature]
        chosen = np.arange(len(fired.activation))[::37]
        cut = laid_out.cut(fired, chosen, flank)
        for i, index in enumerate(chosen.tolist()):
            one, inside = window(corpus, fired, index, flank), cut.letters[i] > 0
            assert cut.letters[i, inside].tobytes().decode() == one.letters
            assert np.array_equal(cut.activation[i, inside], one.activation)
            assert not cut.activation[i, ~inside].any()
            assert np.array_equal(cut.track[i, inside], one.track)
        counts = letter_counts(corpus, fired, chosen, flank)
        assert np.array_equal(laid_out.letter_counts(fired, chosen, flank), counts)


def test_the_consensus_of_a_logo():
    heights = np.array([[0, 0, 0, 0], [0.1, 0.3, 0, 0], [0.1, 0.1, 0, 0], [0, 0, 0.2, 1], [0, 0, 0, 0.2]])
    assert consensus(heights) == "C·U"
    assert consensus(np.zeros((5, 4))) == ""


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_bands_are_those_of_the_ranks(values: list[int]):
    array = np.array(values, dtype=np.float32)
    rank = (np.argsort(np.argsort(array, kind="stable")) + 0.5) / len(array)
    assert _bands(array, BANDS).tolist() == (np.searchsorted(BANDS, rank, side="right") - 1).tolist()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=40))
def test_the_strongest_of_each_family_by_sorting_all(rows: list[tuple[int, int]]):
    sequence, activation = np.array(sorted(rows), dtype=np.int64).reshape(-1, 2).T
    activation = np.random.default_rng(0).permutation(activation).astype(np.float32)
    fired = Firings(sequence, np.arange(len(sequence)), activation, 100, 0.0)
    clusters = np.array(["a", "b", "a", "c", "c", "b"])
    order, seen = [], set()
    for index in np.argsort(-activation, kind="stable").tolist():
        if clusters[sequence[index]] not in seen:
            seen.add(clusters[sequence[index]])
            order.append(index)
    assert top_firings(fired, clusters, 10).tolist() == order
