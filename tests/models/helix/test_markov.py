"""The Markov yardstick against counting by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.models.helix.markov import fit_markov
from helix_sae.mrna.tokens import VOCABULARY

SYMBOLS = len(VOCABULARY)
IDS = st.lists(st.sampled_from(sorted(VOCABULARY.values())), max_size=25).map(
    lambda ids: np.array(ids, dtype=np.int64)
)


def twin_nats(train, ids, order, pseudocount):
    pairs, contexts = Counter(), Counter()
    for sequence in train:
        for t in range(order, len(sequence)):
            context = tuple(sequence[t - order : t])
            pairs[(*context, sequence[t])] += 1
            contexts[context] += 1
    return [
        -math.log(
            (pairs[tuple(ids[t - order : t + 1])] + pseudocount)
            / (contexts[tuple(ids[t - order : t])] + SYMBOLS * pseudocount)
        )
        for t in range(order, len(ids))
    ]


@given(st.lists(IDS, max_size=5), IDS, st.integers(0, 3), st.sampled_from([0.5, 1.0]))
def test_equals_counting_by_hand(train, ids, order, pseudocount):
    found = fit_markov(train, order, pseudocount).nats(ids)
    np.testing.assert_allclose(
        found, twin_nats([s.tolist() for s in train], ids.tolist(), order, pseudocount), rtol=1e-12
    )


def test_each_context_is_a_distribution():
    rng = np.random.default_rng(0)
    model = fit_markov([rng.integers(7, 11, size=500)], order=2)
    np.testing.assert_allclose(np.exp(model.log_probability).sum(1), 1)
    assert model.log_probability.shape == (SYMBOLS**2, SYMBOLS)


def test_a_predictable_sequence_costs_next_to_nothing():
    ids = np.tile([7, 8, 9, 10, 12], 400)
    assert fit_markov([ids], order=5).nats(ids).mean() < 0.01


@pytest.mark.parametrize("n", [0, 1, 5])
def test_sequences_without_a_whole_context_score_nothing(n):
    assert fit_markov([np.full(50, 7)], order=5).nats(np.full(n, 7)).size == 0
