"""Ranks of sparse columns against ranks of the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from helix_sae.errors import AnalysisError
from helix_sae.statistics import ranks
from helix_sae.statistics.ranks import centred_ranks, dense_ranks, rank_products, sort_columns

VALUES = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, -0.5, -2.0, 3.25, 1e-30, 1e30])


def matrices(dtype=np.float64):
    return hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12).flatmap(
        lambda shape: hnp.arrays(dtype, shape, elements=VALUES)
    )


def check(matrix: np.ndarray, mask: np.ndarray) -> None:
    columns = sort_columns(sparse.csr_array(matrix))
    rng = np.random.default_rng(0)
    vectors = rng.integers(-3, 4, size=(len(matrix), 2)).astype(float) * mask[:, None]
    result = rank_products(columns, vectors, mask)
    inside = matrix[mask]
    assert result.n_rows == mask.sum()
    for j in range(matrix.shape[1]):
        ranks = stats.rankdata(inside[:, j])
        expected = ranks @ vectors[mask]
        found = result.products[j] + result.zero_rank[j] * vectors.sum(axis=0)
        np.testing.assert_array_equal(found, expected)
        assert result.sum_of_squares()[j] == pytest.approx(((ranks - ranks.mean()) ** 2).sum(), abs=1e-9)


@given(matrices())
def test_products_equal_dense_ranks(matrix):
    check(matrix, np.ones(len(matrix), dtype=bool))


@given(matrices(), st.integers(0, 2**12 - 1))
def test_a_mask_ranks_as_if_the_other_rows_were_not_there(matrix, bits):
    mask = np.array([bool(bits >> i & 1) for i in range(len(matrix))])
    if mask.any():
        check(matrix, mask)


@pytest.mark.parametrize("n", [255, 256, 257, 700, 5000])
def test_long_columns_take_the_radix_sort(n):
    rng = np.random.default_rng(n)
    matrix = rng.normal(size=(n, 2)).astype(np.float32)
    matrix[:, 1] = np.round(matrix[:, 1], 1)
    columns = sort_columns(matrix)
    for j in range(2):
        np.testing.assert_array_equal(dense_ranks(columns, j), stats.rankdata(matrix[:, j]))
        start, stop = columns.indptr[j], columns.indptr[j + 1]
        np.testing.assert_array_equal(columns.values[start:stop], np.sort(matrix[matrix[:, j] != 0, j]))


def test_values_that_float32_would_merge_stay_apart():
    matrix = np.array([[1.0], [1.0 + 1e-12], [0.0], [1.0 - 1e-12], [-1.0 - 1e-12], [-1.0]])
    columns = sort_columns(matrix)
    np.testing.assert_array_equal(dense_ranks(columns, 0), stats.rankdata(matrix[:, 0]))
    assert columns.values.dtype == np.float64


def test_stored_zeros_and_duplicates_are_what_they_say():
    stored = sparse.coo_array(
        (np.array([1.0, 1.0, 0.0, -0.0]), (np.array([0, 0, 1, 2]), np.array([0, 0, 0, 0]))), shape=(4, 1)
    )
    csr = sparse.csr_array((stored.data, stored.col, [0, 2, 3, 4, 4]), shape=(4, 1))
    columns = sort_columns(csr)
    assert columns.values.tolist() == [2.0]
    np.testing.assert_array_equal(dense_ranks(columns, 0), [4, 2, 2, 2])
    assert csr.nnz == 4, "the caller's matrix is left as it was"


def test_integers_and_csc_are_taken():
    matrix = np.array([[3, 0], [0, 2], [1, 2]])
    columns = sort_columns(sparse.csc_array(matrix))
    np.testing.assert_array_equal(dense_ranks(columns, 1), [1, 2.5, 2.5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_cannot_be_ranked_are_refused(value):
    with pytest.raises(AnalysisError, match="NaN or infinite"):
        sort_columns(np.array([[1.0], [value]]))


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(AnalysisError, match="aligned"):
        rank_products(sort_columns(np.eye(3)), np.zeros((4, 1)))


def test_centred_ranks_are_zero_outside():
    ranks = centred_ranks(np.array([5.0, np.nan, 1.0, 1.0]), np.array([True, False, True, True]))
    np.testing.assert_array_equal(ranks, [1.0, 0.0, -0.5, -0.5])


def test_threads_change_nothing(monkeypatch):
    """Columns in blocks on several threads give the same, to the bit."""
    rng = np.random.default_rng(4)
    features = np.round(rng.normal(size=(300, 23)), 1) * (rng.random((300, 23)) < 0.3)
    features[:, :2] = 0
    vectors, mask = rng.normal(size=(300, 3)), rng.random(300) < 0.8
    vectors[~mask] = 0
    alone = sort_columns(features.astype(np.float32))
    expected = rank_products(alone, vectors, mask)
    monkeypatch.setattr(ranks, "_WORTH_A_THREAD", 0)
    monkeypatch.setattr(ranks.numba.config, "NUMBA_NUM_THREADS", 5)
    together = sort_columns(features.astype(np.float32))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(expected, rank_products(together, vectors, mask), strict=True):
        np.testing.assert_array_equal(one, other)
