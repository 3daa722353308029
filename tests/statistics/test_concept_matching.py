"""Concept matching: planted detectors, slow twins, null and baselines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import average_precision_score
from statistics_oracles import concept_scores

from helix_sae.errors import AnalysisError, DataError
from helix_sae.statistics import concept_matching
from helix_sae.statistics.concept_counts import average_precision
from helix_sae.statistics.concept_matching import (
    THRESHOLDS,
    compare_with_baselines,
    judge_detectors,
    kmer_detectors,
    marker_detectors,
    match_concepts,
    position_detectors,
    prepare_concepts,
    principal_components,
    signed_halves,
)

NAMES = ("codon_pos_1", "utr5", "are", "uorf")
MODES = (False, False, True, True)
N_SEQUENCES, N_FEATURES = 60, 24


class World:
    """Sequences with labelled regions, a period, short motifs and overlapping long instances."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(60, 140, N_SEQUENCES)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.n = int(self.offsets[-1])
        within = np.arange(self.n) - np.repeat(self.offsets[:-1], lengths)
        self.region = (within >= 30).astype(int)
        labels = np.zeros((self.n, 4), dtype=np.uint8)
        labels[:, 0] = (within >= 30) & (within % 3 == 0)
        labels[:, 1] = within < 30
        runs = []
        for start, length in zip(self.offsets[:-1], lengths, strict=True):
            runs += [(2, start + s, start + s + 5) for s in rng.choice(length - 5, 2, replace=False)]
            first = int(rng.integers(0, 10))
            runs += [(3, start + first, start + first + 12), (3, start + first + 6, start + first + 20)]
        self.runs = np.array(runs)
        for concept, begin, end in runs:
            labels[begin:end, concept] = 1
        self.labels = labels
        self.split = np.where(rng.random(N_SEQUENCES) < 0.5, "discovery", "validation")
        codes = np.where(rng.random((self.n, N_FEATURES)) < 0.1, rng.gamma(2, size=(self.n, N_FEATURES)), 0)
        for concept in range(4):
            active = labels[:, concept].astype(bool) ^ (rng.random(self.n) < 0.01)
            codes[:, concept] = active * rng.uniform(0.3, 1.0, self.n)
        codes[:, 4] = np.round(codes[:, 4])
        codes[:, 5] = 0
        self.codes = codes.astype(np.float32)
        self.concepts = prepare_concepts(labels, NAMES, MODES, self.offsets, runs=tuple(self.runs.T))

    def inside(self, part):
        return np.repeat(self.split == part, np.diff(self.offsets))


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def tables(world):
    return match_concepts(
        {"site": sparse.csr_array(world.codes)}, world.concepts, world.split, regions=world.region
    )


def test_the_first_feature_of_each_concept_alone_is_the_same(world, tables):
    alone = match_concepts(
        {"site": sparse.csr_array(world.codes)},
        world.concepts,
        world.split,
        regions=world.region,
        best_only=True,
    )
    pd.testing.assert_frame_equal(alone.best, tables.best)
    pd.testing.assert_frame_equal(alone.matches, tables.best)


def test_planted_detectors_are_returned(tables):
    best = tables.best.set_index("concept")
    for feature, name in enumerate(NAMES):
        assert best.loc[name, "feature"] == feature
        assert best.loc[name, "f1"] >= 0.85
        assert best.loc[name, "best_concept_of_feature"]
        assert best.loc[name, "p_value"] <= 0.02


def instance_of(world, concept):
    """Each nucleotide's instances of one concept, as lists."""
    found = [set() for _ in range(world.n)]
    for number, (c, begin, end) in enumerate(world.runs):
        if c == concept:
            for i in range(begin, end):
                found[i].add(number)
    return found


def test_scores_equal_the_slow_twin(world, tables):
    discovery, validation = world.inside("discovery"), world.inside("validation")
    instances = {c: instance_of(world, c) for c in (2, 3)}
    for row in tables.matches.itertuples():
        concept = NAMES.index(row.concept)
        activation = world.codes[:, row.feature]
        label = world.labels[:, concept].astype(bool)
        assert row.scale == activation[discovery].max()
        bar = row.threshold * float(row.scale)
        fires = (activation > bar) & validation
        precision = (fires & label).sum() / fires.sum() if fires.any() else 0
        if concept in instances:
            all_ids = set().union(*(instances[concept][i] for i in np.flatnonzero(validation)))
            hit_ids = set().union(*(instances[concept][i] for i in np.flatnonzero(fires)), set())
            recall = len(hit_ids) / len(all_ids)
            assert row.n_targets == len(all_ids)
        else:
            recall = (fires & label).sum() / (validation & label).sum()
        assert row.precision == pytest.approx(precision)
        assert row.recall == pytest.approx(recall)
        assert row.n_fired == fires.sum()
        assert row.base_rate == pytest.approx(label[validation].mean())
        expected = average_precision_score(label[validation], activation[validation])
        assert row.average_precision == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 49, 1000, 20_011])
def test_a_perfect_detector_has_a_precision_of_exactly_one_at_most(n):
    everything = np.ones(n, dtype=np.uint8)
    found = average_precision(np.arange(n), everything, everything, everything, n, n)
    assert 1 - 1e-12 < found <= 1


def test_the_threshold_is_the_best_of_the_discovery_clusters(world, tables):
    discovery = world.inside("discovery")
    for row in tables.matches[tables.matches["recall_mode"] == "nucleotide"].itertuples():
        activation = world.codes[discovery, row.feature]
        label = world.labels[discovery, NAMES.index(row.concept)].astype(bool)
        scores = [concept_scores(activation, label, None, t * float(row.scale))[2] for t in THRESHOLDS]
        assert row.discovery_f1 == pytest.approx(max(scores))
        assert row.threshold == THRESHOLDS[int(np.argmax(scores))]


def test_dead_features_are_not_matched(tables):
    assert 5 not in set(tables.matches["feature"])


def test_ranks_and_best_concepts_are_complete(tables):
    matches = tables.matches
    for _, group in matches.groupby("concept"):
        assert set(range(1, 11)) <= set(group["rank_for_concept"])
        ordered = group.sort_values("rank_for_concept")["discovery_f1"].to_numpy()
        assert (np.diff(ordered[1:]) <= 1e-12).all()
        assert ordered[0] >= ordered.max() - concept_matching.EQUAL
    assert matches.groupby("feature")["best_concept_of_feature"].sum().eq(1).all()


def test_the_null_of_noise_is_no_better_or_worse_than_noise(world):
    rng = np.random.default_rng(1)
    noise = np.where(rng.random((world.n, 40)) < 0.1, rng.gamma(2, size=(world.n, 40)), 0)
    tables = match_concepts(
        {"noise": sparse.csr_array(noise)}, world.concepts, world.split, regions=world.region, n_shifted=40
    )
    p = tables.matches["p_value"].dropna()
    assert len(p) > 30
    assert 0.35 < p.mean() < 0.65
    assert (p <= 0.05).mean() < 0.15
    shifted = tables.matches[tables.matches["p_value"].notna()]
    assert shifted["null_f1"].mean() == pytest.approx(shifted["f1"].mean(), rel=0.1)


def test_a_region_reader_is_no_motif_finder(world):
    """A detector of the region scores on motifs inside it; turning labels within the region takes that away."""
    region = (world.region == 0).astype(np.float32)[:, None]
    free = match_concepts({"site": region}, world.concepts, world.split)
    bound = match_concepts({"site": region}, world.concepts, world.split, regions=world.region)
    p_free = free.best.set_index("concept")["p_value"]
    p_bound = bound.best.set_index("concept")["p_value"]
    assert p_free["uorf"] <= 0.05, "uORFs lie in the 5'UTR: shifts over the transcript call its reader a find"
    assert p_bound["uorf"] > 0.05
    assert p_bound["utr5"] <= 0.05, "a concept that fills its region is shifted over the transcript"


def test_blocks_change_nothing(world, tables, monkeypatch):
    monkeypatch.setattr(concept_matching, "FEATURES_AT_ONCE", 7)
    again = match_concepts(
        {"site": sparse.csr_array(world.codes)},
        world.concepts,
        world.split,
        regions=world.region,
        block_nonzeros=100,
    )
    assert tables.matches.equals(again.matches)


def test_validation_labels_do_not_choose(world):
    labels = world.labels.copy()
    labels[world.inside("validation"), 0] = 0
    labels[np.flatnonzero(world.inside("validation"))[::7], 0] = 1
    other = prepare_concepts(labels, NAMES, MODES, world.offsets, runs=tuple(world.runs.T))
    first = match_concepts({"s": world.codes}, world.concepts, world.split, n_shifts=0).matches
    second = match_concepts({"s": world.codes}, other, world.split, n_shifts=0).matches
    columns = [
        "feature",
        "concept",
        "threshold",
        "rank_for_concept",
        "discovery_f1",
        "best_concept_of_feature",
    ]
    assert first[columns].equals(second[columns])
    assert not first["f1"].equals(second["f1"])


def test_instances_from_ids_and_from_neighbours():
    labels = np.array([[1], [1], [0], [1], [1], [1]])
    offsets = [0, 4, 6]
    neighbours = prepare_concepts(labels, ["m"], [True], offsets)
    assert np.diff(neighbours.instances.starts).tolist() == [2, 1, 2], "sequences are never joined"
    ids = np.array([[1], [2], [0], [1], [1], [1]])
    given = prepare_concepts(labels, ["m"], [True], offsets, instances=ids)
    assert [given.instances.rows[a:b].tolist() for a, b in zip(given.instances.starts, given.instances.starts[1:], strict=False)] == [[0, 3], [1], [4, 5]]  # fmt: skip


def test_bad_labels_are_named():
    labels = np.array([[1], [1], [0]])
    with pytest.raises(DataError, match="without an instance id"):
        prepare_concepts(labels, ["m"], [True], [0, 3], instances=np.array([[1], [0], [0]]))
    with pytest.raises(DataError, match="none of its runs"):
        prepare_concepts(labels, ["m"], [True], [0, 3], runs=([0], [0], [1]))
    with pytest.raises(DataError, match="offsets"):
        prepare_concepts(labels, ["m"], [True], [0, 2])
    with pytest.raises(DataError, match="names"):
        prepare_concepts(labels, ["m", "n"], [True], [0, 3])


def test_bad_codes_are_named(world):
    with pytest.raises(AnalysisError, match="signed_halves"):
        match_concepts({"s": -world.codes}, world.concepts, world.split)
    with pytest.raises(DataError, match="codon-start"):
        match_concepts({"s": world.codes[1:]}, world.concepts, world.split)
    with pytest.raises(AnalysisError, match="nothing to match"):
        match_concepts({"s": 0 * world.codes}, world.concepts, world.split)
    with pytest.raises(AnalysisError, match="'validation'"):
        match_concepts({"s": world.codes}, world.concepts, ["discovery"] * N_SEQUENCES)
    with pytest.raises(DataError, match="split names 3"):
        match_concepts({"s": world.codes}, world.concepts, ["discovery"] * 3)
    with pytest.raises(DataError, match="regions"):
        match_concepts({"s": world.codes}, world.concepts, world.split, regions=np.zeros(3))


def test_rare_concepts_are_warned_of(world):
    labels = np.column_stack([world.labels[:, 1], np.zeros(world.n, dtype=np.uint8)])
    labels[3, 1] = 1
    concepts = prepare_concepts(labels, ["utr5", "once"], [False, True], world.offsets)
    tables = match_concepts({"s": world.codes}, concepts, world.split, n_shifts=0)
    assert tables.warnings[["concept", "warning"]].to_numpy().tolist() == [["once", "too_rare"]]
    assert set(tables.matches["concept"]) == {"utr5"}
    with pytest.raises(AnalysisError, match="No concept"):
        match_concepts({"s": world.codes}, concepts, world.split, min_positive=10**6)


def test_kmers_fire_on_their_last_nucleotide_and_stay_in_their_sequence():
    letters = np.array([0, 3, 2, 0, 3, 2, -1, 0, 3])
    codes, names = kmer_detectors(letters, np.array([0, 4, 9]), 3)
    dense = codes.toarray()
    assert dense[:, names.index("AUG")].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert dense.sum() == 2, "AUG and UGA; nothing across the boundary or the N"
    assert names[:2] == ["AAA", "AAC"]
    assert len(names) == 64
    with pytest.raises(AnalysisError, match="between 1 and 6"):
        kmer_detectors(letters, np.array([0, 9]), 7)


def test_signed_halves_split_at_the_discovery_mean():
    values = np.array([[1.0], [3.0], [8.0]])
    codes = signed_halves(values, np.array([True, True, False])).toarray()
    np.testing.assert_allclose(codes, [[0, 1], [1, 0], [6, 0]])


def test_principal_components_are_fitted_on_the_discovery_rows():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(200, 5)) * [5, 1, 1, 1, 1]
    rows = np.arange(200) < 100
    scores = principal_components(values, rows, 2)
    assert abs(np.corrcoef(scores[:, 0], values[:, 0])[0, 1]) > 0.99
    _, singular, _ = np.linalg.svd(values[rows] - values[rows].mean(axis=0))
    np.testing.assert_allclose(
        np.linalg.norm(scores[rows] - scores[rows].mean(axis=0), axis=0), singular[:2], rtol=1e-5
    )


def test_baselines_stand_beside_the_features(world, tables):
    neurons = match_concepts(
        {"site": signed_halves(world.codes[:, 6:10], world.inside("discovery"))}, world.concepts, world.split
    )
    table = compare_with_baselines({"sae": tables, "neurons": neurons})
    assert table["concept"].tolist() == [name for name in NAMES for _ in range(2)]
    pivot = table.pivot_table(index="concept", columns="kind", values="f1")
    assert (pivot["sae"] > pivot["neurons"]).all()


def judged(**changes):
    rows = [
        {"concept": "uorf", "kind": "sae", "f1": 0.8, "p_value": 0.01},
        {"concept": "uorf", "kind": "3-mers", "f1": 0.3, "p_value": 0.01},
        {"concept": "uorf", "kind": "markers", "f1": 0.6, "p_value": 0.01},
        {"concept": "cds", "kind": "sae", "f1": 0.9, "p_value": 0.01},
        {"concept": "cds", "kind": "markers", "f1": 1.0, "p_value": 0.01},
    ]
    rows[0] |= changes
    return judge_detectors(pd.DataFrame(rows), ["3-mers", "markers"]).set_index(["concept", "kind"])


def test_what_the_input_gives_away_does_not_pass():
    table = judged()
    assert table["passes"].to_dict() == {
        ("uorf", "sae"): True,
        ("uorf", "3-mers"): False,
        ("uorf", "markers"): False,
        ("cds", "sae"): False,
        ("cds", "markers"): False,
    }
    assert table.loc[("uorf", "sae"), "reader_f1"] == 0.6


@pytest.mark.parametrize("change", [{"f1": 0.64}, {"p_value": 0.2}, {"p_value": np.nan}])
def test_margin_and_null_decide(change):
    assert not judged(**change)["passes"].any()


def test_a_low_f1_does_not_pass_whatever_it_beats():
    table = judged(f1=0.49)
    assert not table.loc[("uorf", "sae"), "passes"]
    alone = judge_detectors(pd.DataFrame([{"concept": "x", "kind": "sae", "f1": 0.5, "p_value": 0.01}]), [])
    assert alone["passes"].tolist() == [True]
    assert alone["reader_f1"].tolist() == [0.0]


def test_false_discoveries_are_counted_over_the_concepts_of_a_kind():
    rows = [
        {"concept": f"c{i}", "kind": "sae", "f1": 0.9, "p_value": 0.04 if i < 3 else 0.9} for i in range(30)
    ]
    assert not judge_detectors(pd.DataFrame(rows), [])["passes"].any()


def test_position_and_marker_detectors():
    codes, names = position_detectors(np.array([0, 4, 250]), (3, 6))
    assert names == ["first_3", "first_6"]
    assert codes.toarray().tolist() == [[1, 1], [0, 1], [0, 0]]
    since, count = np.array([-1, 1, 2, 3, 1, 3, 4, 9]), np.array([0, 1, 1, 1, 2, 2, 2, 2])
    fires, names = marker_detectors(since, count)
    made = dict(zip(names, fires.toarray().astype(bool).T.tolist(), strict=True))
    assert made["before"] == [True] + [False] * 7
    assert made["codon_2"] == [False, False, True, False, False, False, False, False]
    assert made["first_codon"] == [False, True, True, True, False, False, False, False]
    assert made["after"] == [False] * 6 + [True] * 2
