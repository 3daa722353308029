"""Splits by cluster."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import AnalysisError, ConfigurationError, DataError
from helix_sae.statistics.splits import split_by_cluster

HALVES = {"discovery": 0.5, "validation": 0.5}


@given(st.lists(st.integers(0, 30), min_size=60, max_size=120), st.integers(0, 10))
def test_clusters_stay_whole_and_order_does_not_matter(numbers, seed):
    clusters = pd.Series([f"c{i}" for i in [*range(31), *numbers]])
    split = split_by_cluster(clusters, HALVES, seed)
    assert split.groupby(clusters).nunique().eq(1).all()
    turned = split_by_cluster(clusters[::-1], HALVES, seed)
    pd.testing.assert_series_equal(turned.sort_index(), split)


def test_new_sequences_leave_the_others_where_they_were():
    clusters = pd.Series([f"gene{i}" for i in range(200)])
    before = split_by_cluster(clusters[:100], HALVES, 3)
    pd.testing.assert_series_equal(split_by_cluster(clusters, HALVES, 3)[:100], before)


def test_shares_come_out_near_what_was_asked():
    clusters = [str(i) for i in range(5000)]
    shares = split_by_cluster(clusters, {"a": 0.6, "b": 0.3, "c": 0.1}, 0).value_counts(normalize=True)
    np.testing.assert_allclose(shares[["a", "b", "c"]], [0.6, 0.3, 0.1], atol=0.03)


def test_known_values_do_not_drift():
    split = split_by_cluster(["KCNA1", "BRCA1", "TP53", "ACTB"], HALVES, 0)
    assert split.tolist() == split_by_cluster(["KCNA1", "BRCA1", "TP53", "ACTB"], HALVES, 0).tolist()
    assert split.name == "split"


def test_an_empty_part_is_an_error():
    with pytest.raises(AnalysisError, match="leaves no sequence for"):
        split_by_cluster(["only"] * 10, HALVES, 0)


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}])
def test_shares_must_add_up(fractions):
    with pytest.raises(ConfigurationError):
        split_by_cluster(["a", "b"], fractions, 0)


def test_a_sequence_without_a_cluster_is_named():
    with pytest.raises(DataError, match="row 1"):
        split_by_cluster(pd.Series(["a", None, "b"]), HALVES, 0)
