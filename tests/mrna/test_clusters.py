"""Clusters: against all-pairs comparison, on families of known divergence, and by labels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna.clusters import assign_clusters, similarity_components


def random_sequence(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list("ACGU"), length))


def mutated(rng: np.random.Generator, sequence: str, n_changes: int) -> str:
    letters = list(sequence)
    for i in rng.choice(len(letters), n_changes, replace=False):
        letters[i] = rng.choice([x for x in "ACGU" if x != letters[i]])
    return "".join(letters)


def all_pairs_components(sequences: list[str], k: int, min_shared: float) -> list[int]:
    """Slow twin: compare every pair, then relabel along the edges until nothing changes."""
    sets = [{s[i : i + k] for i in range(len(s) - k + 1) if "N" not in s[i : i + k]} for s in sequences]
    label = list(range(len(sequences)))
    edges = [
        (i, j)
        for i in range(len(sequences))
        for j in range(i)
        if sequences[i] == sequences[j]
        or (sets[i] and sets[j] and len(sets[i] & sets[j]) >= min_shared * min(len(sets[i]), len(sets[j])))
    ]
    changed = True
    while changed:
        changed = False
        for i, j in edges:
            if label[i] != label[j]:
                label[i] = label[j] = min(label[i], label[j])
                changed = True
    numbers: dict[int, int] = {}
    return [numbers.setdefault(x, len(numbers)) for x in label]


def test_families_are_found_as_by_comparing_all_pairs() -> None:
    rng = np.random.default_rng(0)
    sequences: list[str] = []
    for _ in range(40):
        parent = random_sequence(rng, int(rng.integers(60, 400)))
        sequences += [
            parent,
            *(mutated(rng, parent, len(parent) // 20) for _ in range(int(rng.integers(0, 6)))),
        ]
    rng.shuffle(sequences)
    assert similarity_components(sequences).tolist() == all_pairs_components(sequences, 12, 0.25)


def test_one_changed_letter_joins_and_unrelated_sequences_stay_apart() -> None:
    rng = np.random.default_rng(1)
    mothers = [random_sequence(rng, 50) for _ in range(300)]
    children = [mutated(rng, mother, 1) for mother in mothers]
    component = similarity_components(mothers + children)
    assert len(set(component.tolist())) == 300
    np.testing.assert_array_equal(component[:300], component[300:])


def test_part_of_a_transcript_belongs_to_it() -> None:
    rng = np.random.default_rng(2)
    transcript = random_sequence(rng, 3_000)
    component = similarity_components(
        [transcript, random_sequence(rng, 3_000), transcript[:60]], sketch=3_000
    )
    assert component.tolist() == [0, 1, 0]


def test_a_common_tail_does_not_join() -> None:
    rng = np.random.default_rng(3)
    sequences = [random_sequence(rng, 100) + "A" * 60 for _ in range(50)]
    assert len(set(similarity_components(sequences).tolist())) == 50


@settings(max_examples=50)
@given(st.lists(st.text(alphabet="AC", min_size=1, max_size=12), min_size=1, max_size=12))
def test_any_input_is_partitioned_and_equal_sequences_stay_together(sequences: list[str]) -> None:
    component = similarity_components(sequences, k=3)
    assert component.shape == (len(sequences),)
    assert set(component.tolist()) == set(range(int(component.max()) + 1))
    for sequence in sequences:
        assert len({int(c) for s, c in zip(sequences, component, strict=True) if s == sequence}) == 1
    np.testing.assert_array_equal(component, similarity_components(sequences, k=3))


def test_no_sequences_and_short_ones() -> None:
    assert similarity_components([]).tolist() == []
    assert similarity_components(["AC", "GU", "AC", "N" * 30]).tolist() == [0, 1, 0, 2]


def test_parameters_out_of_range() -> None:
    with pytest.raises(DataError, match="k must be in"):
        similarity_components(["ACGU"], k=0)


def test_labels_win_and_gaps_are_filled_by_similarity() -> None:
    rng = np.random.default_rng(4)
    a, b, c = (random_sequence(rng, 80) for _ in range(3))
    sequences = [a, mutated(rng, a, 1), b, c, mutated(rng, c, 1)]
    complete = {"cluster": ["x", "y", "x", "y", "z"]}
    assert assign_clusters(sequences, complete) == complete["cluster"]
    gaps = {"metadata_gene_id": ["g1", None, "g1", None, None]}
    assert assign_clusters(sequences, gaps) == ["g1", "g1", "g1", "similar_000001", "similar_000001"]


def test_choices() -> None:
    sequences = ["ACGU" * 10, "ACGU" * 10, "GGCA" * 10]
    labels = {"cluster": [None] * 3, "mother": ["m", "m", "n"], "metadata_gene_id": ["g"] * 3}
    assert assign_clusters(sequences, labels) == ["m", "m", "n"]
    assert assign_clusters(sequences, labels, "metadata_gene_id") == ["g"] * 3
    assert assign_clusters(sequences, labels, "similarity") == ["similar_000000"] * 2 + ["similar_000001"]
    assert len(set(assign_clusters(sequences, labels, "none"))) == 3
    with pytest.raises(ConfigurationError, match="'cell_line' is not a column with labels"):
        assign_clusters(sequences, labels, "cell_line")


@pytest.mark.slow
def test_a_hundred_thousand_short_sequences_take_seconds() -> None:
    rng = np.random.default_rng(5)
    letters = np.frombuffer(b"ACGU", dtype=np.uint8)[rng.integers(0, 4, size=(50_000, 50))]
    mothers = [row.tobytes().decode() for row in letters]
    letters[np.arange(50_000), rng.integers(0, 50, 50_000)] = ord("A")
    began = time.perf_counter()
    component = similarity_components(mothers + [row.tobytes().decode() for row in letters])
    assert time.perf_counter() - began < 120
    assert (component[:50_000] == component[50_000:]).mean() > 0.999
