"""Batches of nearly one length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.models.batching import length_batches

LENGTHS = st.lists(st.integers(1, 300), max_size=80).map(np.array)


@given(
    LENGTHS, st.integers(1, 2000), st.sampled_from([0.0, 0.05, 0.5]), st.one_of(st.none(), st.integers(0, 99))
)
def test_every_sequence_once_within_budget_and_padding(lengths, budget, padding, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    batches = length_batches(lengths, budget, padding, rng)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = lengths[batch]
        padded = len(batch) * sizes.max()
        assert len(batch) == 1 or padded <= budget
        assert padded - sizes.sum() <= padding * padded


def test_without_a_generator_the_order_is_that_of_the_lengths():
    batches = length_batches(np.array([30, 10, 30, 20, 10]), token_budget=60)
    assert [b.tolist() for b in batches] == [[1, 4], [3], [0, 2]]


def test_a_long_sequence_is_a_batch_of_its_own():
    assert [b.tolist() for b in length_batches(np.array([500, 499]), token_budget=64)] == [[1], [0]]


def test_a_generator_shuffles_reproducibly():
    lengths = np.full(200, 10)
    one, two, other = (length_batches(lengths, 50, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("lengths", [np.array([], dtype=int)])
def test_nothing_gives_no_batch(lengths):
    assert length_batches(lengths) == []
