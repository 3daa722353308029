"""Sparse probing, absorption and stability on codes whose answers are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse

from helix_sae.sae.absorption import absorption, kmer_name, kmers_ending, main_features
from helix_sae.sae.probing import RAW, Sample, balanced_draw, rank_features, sparse_probes
from helix_sae.sae.stability import match_of_seeds, matched_cosines, random_match


def sample(n: int, seed: int) -> tuple[Sample, np.ndarray, np.ndarray]:
    """Feature 2 is the first concept; the second is there when features 4 or 5 fire; the rest is noise."""
    rng = np.random.default_rng(seed)
    codes = rng.random((n, 8)) * (rng.random((n, 8)) < 0.3)
    first = codes[:, 2] > 0
    second = (codes[:, 4] > 0) | (codes[:, 5] > 0)
    activations = codes + 0.01 * rng.normal(size=(n, 8))
    return Sample(scipy.sparse.csr_array(codes), activations.astype(np.float32)), first, second


def test_probes_find_the_features_of_a_concept() -> None:
    fitted, first, second = sample(3000, 0)
    judged, first_there, second_there = sample(2000, 1)
    rng = np.random.default_rng(2)
    chance = (rng.random(3000) < 0.5, rng.random(2000) < 0.5)
    table = sparse_probes(
        fitted,
        judged,
        {
            "one": (first, first_there),
            "two": (second, second_there),
            "chance": chance,
            "rare": (np.arange(3000) < 9, np.arange(2000) < 9),
        },
        sizes=(1, 2),
    )
    assert set(table["concept"]) == {"one", "two", "chance"}
    by = table.set_index(["concept", "probe"])
    assert by.loc[("one", "1 feature"), "features"] == "2"
    assert by.loc[("one", "1 feature"), "balanced_accuracy"] > 0.95
    assert by.loc[("two", "1 feature"), "auc"] < 0.85
    assert set(by.loc[("two", "2 features"), "features"].split()) == {"4", "5"}
    assert by.loc[("two", "2 features"), "balanced_accuracy"] > 0.95
    assert abs(by.loc[("chance", "2 features"), "auc"] - 0.5) < 0.06
    assert by.loc[("one", RAW), "auc"] > 0.95
    assert list(by.loc["one", "k"]) == [1, 2, 0]


def test_ranks_equal_the_plain_formula() -> None:
    data, labels, _ = sample(500, 3)
    dense = data.codes.toarray()
    plain = np.abs(dense[labels].mean(0) - dense[~labels].mean(0)) / dense.std(0)
    np.testing.assert_array_equal(rank_features(data.codes, labels), np.argsort(-plain))


def test_a_feature_that_never_fires_comes_last() -> None:
    data, labels, _ = sample(500, 3)
    codes = data.codes.toarray()
    codes[:, 0] = 0
    assert rank_features(scipy.sparse.csr_array(codes), labels)[-1] == 0


def test_draws_are_balanced_as_far_as_there_are_tokens() -> None:
    labels = np.arange(1000) < 30
    drawn = balanced_draw(labels, 200, np.random.default_rng(0))
    assert (np.diff(drawn) > 0).all()
    assert labels[drawn].sum() == 30
    assert (~labels[drawn]).sum() == 100


def test_kmers_that_end_at_a_nucleotide() -> None:
    letters = np.array(["ACGU".find(c) for c in "ACGNUUAC"])
    names = [kmer_name(int(n), 2) if n >= 0 else "" for n in kmers_ending(letters, np.array([0, 5, 8]), 2)]
    assert names == ["", "AC", "CG", "", "", "", "UA", "AC"]
    assert [kmer_name(i, 1) for i in range(4)] == list("ACGU")


def kmer_sample(n: int, seed: int, absorbing: bool) -> tuple[Sample, list[np.ndarray]]:
    """One feature a letter and one for AG; where AG has its own, the feature of G may fall silent there."""
    letters = np.random.default_rng(seed).integers(0, 4, n)
    kmers = [kmers_ending(letters, np.array([0, n]), k) for k in (1, 2)]
    codes = np.zeros((n, 6))
    codes[np.arange(n), letters] = 1.0
    special = kmers[1] == 2  # AG
    codes[special, 4] = 1.0
    if absorbing:
        codes[special, 2] = 0.0
    return Sample(scipy.sparse.csr_array(codes), (codes @ decoder(absorbing)).astype(np.float32)), kmers


def decoder(absorbing: bool) -> np.ndarray:
    """The feature of AG points along G as well, when it stands for it."""
    rows = np.eye(6)
    if absorbing:
        rows[4] = (rows[2] + rows[4]) / np.sqrt(2)
    return rows


@pytest.mark.parametrize("absorbing", [True, False])
def test_absorption_is_found_where_it_is(absorbing: bool) -> None:
    (fitted, first), (judged, second) = (kmer_sample(4000, seed, absorbing) for seed in (0, 1))
    table = absorption(fitted, judged, (first, second), decoder(absorbing), np.zeros(6)).set_index("concept")
    assert list(table.index) == list("ACGU")
    assert (table.loc[["A", "C", "U"], "absorption_rate"] == 0).all()
    g = table.loc["G"]
    if absorbing:
        assert g["absorption_rate"] == pytest.approx(0.25, abs=0.03)
        assert (g["absorbed_by"], g["absorbing_feature"], g["rate_in_it"]) == ("AG", "4", 1.0)
        assert g["main_features"] == "2"
    else:
        assert g["absorption_rate"] == 0.0
        assert g["absorbed_by"] == ""


def test_a_split_concept_has_several_main_features() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(1000) < 0.5
    half = rng.random(1000) < 0.5
    codes = np.stack([labels & half, labels & ~half, rng.random(1000) < 0.1, ~labels], axis=1).astype(float)
    special = rng.integers(0, 4, 1000)
    chosen, f1 = main_features(scipy.sparse.csr_array(codes), labels, special)
    assert sorted(chosen) == [0, 1]
    assert f1 == 1.0


def test_a_concept_told_by_its_special_cases_only_has_no_main_feature() -> None:
    rng = np.random.default_rng(0)
    labels, special = rng.random(1000) < 0.5, rng.integers(0, 4, 1000)
    codes = np.stack([labels & (special == case) for case in range(4)], axis=1).astype(float)
    chosen, f1 = main_features(scipy.sparse.csr_array(codes), labels, special)
    assert len(chosen) == 0
    assert f1 == 0.0


def test_matching_finds_a_permutation_and_is_the_best_one() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 6))
    np.testing.assert_allclose(matched_cosines(rows, 3 * rows[rng.permutation(12)]), 1.0)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(6, 4))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    best = max(
        sum(unit[0][i] @ unit[1][j] for i, j in enumerate(order))
        for order in itertools.permutations(range(6), 5)
    )
    assert matched_cosines(a, b).sum() == pytest.approx(best)


def test_seeds_are_matched_pair_by_pair() -> None:
    rows = np.random.default_rng(0).normal(size=(48, 12))
    other = np.random.default_rng(1).normal(size=(30, 12))
    pairs = [matched_cosines(rows, np.roll(rows, 1, axis=0)), matched_cosines(rows, other)]
    pairs.append(matched_cosines(np.roll(rows, 1, axis=0), other))
    found = match_of_seeds([rows, np.roll(rows, 1, axis=0), other])
    assert found["pw_mcc"] == pytest.approx(np.mean([pair.mean() for pair in pairs]))
    assert found["pw_mcc_lowest"] == pytest.approx(min(pair.mean() for pair in pairs))
    assert 0.3 < random_match(48, 12) < 0.8
    for nothing_to_compare in ([rows], [rows, rows[:0]]):
        assert np.isnan(list(match_of_seeds(nothing_to_compare).values())).all()
