"""The compiled selection against torch's own operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helix_sae.sae.kernels import entries_above, top_k_rows
from helix_sae.sae.selection import active_above, largest_active, top_k_active
from helix_sae.sae.sparse import ActiveCodes, to_dense
from helix_sae.sae.workers import Workers


def run_top_k(pre: np.ndarray, bias: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    codes = np.empty((pre.shape[0], k), np.float32)
    features = np.empty((pre.shape[0], k), np.int64)
    top_k_rows(pre.copy(), bias, k, codes, features)
    return codes, features


@given(
    st.data(),
    st.integers(1, 40),
    st.sampled_from(["any", "ties", "negative", "wide"]),
)
def test_top_k_is_exact(data: st.DataObject, m: int, kind: str) -> None:
    k = data.draw(st.integers(1, m))
    elements = {
        "any": st.floats(-10, 10, width=32),
        "ties": st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 1.0]),
        "negative": st.floats(-5, -(2.0**-10), width=32),
        "wide": st.floats(-(2.0**100), 2.0**100, width=32),
    }[kind]
    pre = data.draw(arrays(np.float32, (3, m), elements=elements))
    codes, features = run_top_k(pre, np.zeros(m, np.float32), k)
    for row in range(3):
        assert len(set(features[row])) == k
        assert (np.diff(features[row]) > 0).all()
        kept = pre[row, features[row]]
        np.testing.assert_array_equal(codes[row], np.maximum(kept, 0))
        np.testing.assert_array_equal(np.sort(kept)[::-1], np.sort(pre[row])[::-1][:k])


@pytest.mark.parametrize(("m", "k"), [(384, 32), (1000, 1), (64, 64), (257, 200)])
def test_top_k_on_gaussian_rows_with_bias(m: int, k: int) -> None:
    rng = np.random.default_rng(0)
    pre = rng.normal(size=(50, m)).astype(np.float32) * rng.gamma(1, 3, size=(50, 1)).astype(np.float32)
    bias = rng.normal(size=m).astype(np.float32)
    codes, features = run_top_k(pre, bias, k)
    values, columns = torch.from_numpy(pre + bias).topk(k, dim=1)
    np.testing.assert_array_equal(np.sort(features, axis=1), np.sort(columns.numpy(), axis=1))
    np.testing.assert_array_equal(np.sort(codes, axis=1), np.sort(values.relu().numpy(), axis=1))


def test_ties_go_to_the_first_columns() -> None:
    _, features = run_top_k(np.ones((1, 9), np.float32), np.zeros(9, np.float32), 3)
    assert features.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_end_and_show(bad: float) -> None:
    pre = np.linspace(-1, 1, 20, dtype=np.float32)[None].repeat(2, axis=0)
    pre[0, 3:18] = bad
    codes, features = run_top_k(pre, np.zeros(20, np.float32), 6)
    assert features.min() >= 0
    assert features.max() < 20
    assert np.isfinite(codes[1]).all()
    assert np.isnan(codes[0]).all()


def test_entries_above_thresholds_in_row_order_with_nan_kept() -> None:
    pre = np.array([[1.0, -1.0, 0.5], [np.nan, 2.0, 0.0]], np.float32)
    codes, features, counts = np.empty(7, np.float32), np.empty(7, np.int64), np.empty(2, np.int64)
    bias, threshold = np.array([0, 3, 0], np.float32), np.array([0.9, 2.5, 0.0], np.float32)
    size = entries_above(pre, bias, threshold, codes, features, counts)
    assert counts.tolist() == [2, 2]
    assert features[:size].tolist() == [0, 2, 0, 1]
    np.testing.assert_array_equal(codes[:size], np.array([1.0, 0.5, np.nan, 5.0], np.float32))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_selection_equals_dense_operations(n_threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    centred, weight = torch.randn(300, 8, generator=generator), torch.randn(20, 8, generator=generator)
    bias, threshold = torch.randn(20, generator=generator), torch.rand(20, generator=generator)
    pre = torch.addmm(bias, centred, weight.T)
    workers = Workers(n_threads)
    above = active_above(centred, weight, bias, threshold, workers)
    torch.testing.assert_close(to_dense(above, 20), pre * (pre > threshold))
    values, features = pre.topk(5, dim=1)
    chosen = top_k_active(centred, weight, bias, 5, workers)
    torch.testing.assert_close(
        to_dense(chosen, 20), torch.zeros_like(pre).scatter(1, features, values.relu())
    )
    workers.close()


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=30), st.integers(1, 32))
def test_largest_active_keeps_the_count_with_ties(values: list[float], count: int) -> None:
    codes = torch.tensor(values)
    active = ActiveCodes(codes, torch.arange(len(values)), torch.tensor([0, len(values)]))
    chosen, edge = largest_active(active, count)
    expected = sorted(values, reverse=True)[:count]
    assert sorted(chosen.codes.tolist(), reverse=True) == expected
    assert edge == (expected[-1] if len(values) >= count else 0.0)
