"""Streamed codes and pools against dense computations."""

from __future__ import annotations

import itertools
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_toys import CONFIGS, D_IN, superposition

import helix_sae.sae.codes as codes_module
from helix_sae.errors import DataError
from helix_sae.sae import (
    SparseAutoencoder,
    TokenCodes,
    encode_stream,
    estimate_scaling,
    evaluate_sae,
    pool_codes,
    random_autoencoder,
    sequence_anndata,
)
from helix_sae.sae.stability import unknown_stability

NAMES = sorted(CONFIGS)


def toy_sae(name: str) -> SparseAutoencoder:
    return random_autoencoder(
        CONFIGS[name].resolve(D_IN), estimate_scaling(superposition(500), "toy"), seed=0
    )


def corpus(lengths: list[int], seed: int = 0) -> list[tuple[str, np.ndarray, np.ndarray]]:
    x = superposition(sum(lengths), seed).numpy()
    flags = np.random.default_rng(seed).random(sum(lengths)) < 0.75
    edges = np.cumsum([0, *lengths])
    return [(f"s{i}", x[a:b], flags[a:b]) for i, (a, b) in enumerate(itertools.pairwise(edges))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk_tokens", [1, 50, 10_000])
def test_streamed_codes_equal_dense_ones(name: str, chunk_tokens: int) -> None:
    sae, sequences = toy_sae(name), corpus([30, 1, 0, 75, 12])
    result = encode_stream(sae, iter(sequences), chunk_tokens=chunk_tokens)
    x = torch.from_numpy(np.concatenate([activations for _, activations, _ in sequences]))
    np.testing.assert_allclose(result.codes.toarray(), sae.encode(x).detach().numpy(), rtol=1e-5, atol=1e-5)
    assert result.codes.has_canonical_format
    assert (result.codes.data > 0).all()
    assert result.codes.dtype == np.float32
    assert result.offsets.tolist() == [0, 30, 31, 31, 106, 118]
    assert result.sequence_id.tolist() == ["s0", "s1", "s2", "s3", "s4"]
    np.testing.assert_array_equal(result.is_nucleotide, np.concatenate([flags for *_, flags in sequences]))


def plain_pools(result: TokenCodes) -> tuple[np.ndarray, np.ndarray]:
    dense = result.codes.toarray().astype(np.float64)
    mean = np.zeros((result.sequence_id.size, dense.shape[1]))
    maximum = np.zeros_like(mean)
    for i in range(result.sequence_id.size):
        rows = np.arange(result.offsets[i], result.offsets[i + 1])
        rows = rows[result.is_nucleotide[rows]]
        if rows.size:
            mean[i], maximum[i] = dense[rows].mean(0), dense[rows].max(0)
    return mean, maximum


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(0, 3))
def test_pools_count_nucleotides_only(lengths: list[int], seed: int) -> None:
    result = encode_stream(toy_sae("topk"), corpus(lengths, seed))
    block = codes_module._POOL_BLOCK
    try:
        codes_module._POOL_BLOCK = 100  # two sequences a block
        pools = pool_codes(result)
    finally:
        codes_module._POOL_BLOCK = block
    for pooled, plain in zip(pools, plain_pools(result), strict=True):
        assert pooled.dtype == np.float32
        np.testing.assert_allclose(pooled.toarray(), plain, rtol=1e-5, atol=1e-6)


def test_anndata_has_everything_and_can_be_written(tmp_path: Path) -> None:
    sae = toy_sae("topk")
    result = encode_stream(sae, corpus([10, 20, 30]))
    table = pd.DataFrame(
        {
            "sequence_id": ["s2", "unused", "s0", "s1"],
            "sequence": ["A", "C", "G", "U"],
            "cds_start": pd.array([3, None, 5, None], dtype="Int64"),
            "functional_mrl": pd.array([1.5, 2.0, None, 4.0], dtype="Float64"),
            "regulatory_class": pd.Categorical(["x", None, None, "y"]),
            "flag": pd.array([True, None, False, True], dtype="boolean"),
            "structural_length": [1, 2, 3, 4],
        }
    )
    statistics = evaluate_sae(sae, [superposition(100)]).features
    data = sequence_anndata(result, table, sae, statistics, {"model": "abc", "k": "4"})
    mean, maximum = plain_pools(result)
    np.testing.assert_allclose(data.X.toarray(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.layers["max"].toarray(), maximum, rtol=1e-5, atol=1e-6)
    assert list(data.obs_names) == ["s0", "s1", "s2"]
    assert list(data.obs["sequence"].astype(str)) == ["G", "U", "A"]
    np.testing.assert_array_equal(data.obs["cds_start"], [5, np.nan, 3])
    np.testing.assert_array_equal(data.obs["functional_mrl"], [np.nan, 4.0, 1.5])
    assert data.obs["regulatory_class"].isna().tolist() == [True, False, False]
    assert {"density", "max_activation", "mean_when_active", "alive"} <= set(data.var.columns)
    np.testing.assert_array_equal(data.varm["decoder"], sae.W_dec.detach().numpy())
    assert (data.var["certified"] == "unknown").all()
    known = unknown_stability(np.ones(sae.d_sae, dtype=bool)).assign(stability=0.5, certified="no")
    sae.stability = known.assign(certified=["yes", *known["certified"][1:]])
    data = sequence_anndata(result, table, sae, statistics, {"model": "abc", "k": "4"})
    assert (data.var["certified"] == "yes").tolist() == [True] + [False] * (sae.d_sae - 1)
    assert (data.var["stability"] == 0.5).all()
    assert dict(data.uns) == {"model": "abc", "k": "4"}
    for write, read, name in (
        (data.write_h5ad, anndata.read_h5ad, "a.h5ad"),
        (data.write_zarr, anndata.read_zarr, "a.zarr"),
    ):
        write(tmp_path / name)
        back = read(tmp_path / name)
        np.testing.assert_array_equal(back.X.toarray(), data.X.toarray())
        assert list(back.obs.columns) == list(table.columns)
        assert back.var["certified"].tolist() == data.var["certified"].tolist()


def test_statistics_by_default_come_from_the_codes() -> None:
    sae, sequences = toy_sae("topk"), corpus([40, 60])
    table = pd.DataFrame({"sequence_id": ["s0", "s1"]})
    var = sequence_anndata(encode_stream(sae, sequences), table, sae).var
    x = torch.from_numpy(np.concatenate([activations for _, activations, _ in sequences]))
    expected = evaluate_sae(sae, [x]).features
    for column in ("density", "max_activation", "mean", "mean_when_active", "alive"):
        np.testing.assert_allclose(
            var[column].to_numpy(float), expected[column].to_numpy(float), rtol=1e-5, atol=1e-7
        )


def test_what_cannot_be_encoded() -> None:
    sae = toy_sae("topk")
    good = corpus([5, 6])
    with pytest.raises(DataError, match="no sequence"):
        encode_stream(sae, [])
    with pytest.raises(DataError, match="s0 comes more than once"):
        encode_stream(sae, [good[0], good[0]])
    with pytest.raises(DataError, match="5 activations but 4"):
        encode_stream(sae, [(good[0][0], good[0][1], good[0][2][:4])])
    with pytest.raises(DataError, match="site b have shape"):
        encode_stream(sae, [("s", good[0][1][:, :3], good[0][2])], site="site b")
    with pytest.raises(DataError, match="not finite"):
        encode_stream(sae, [("s", np.full((2, D_IN), np.nan, np.float32), np.ones(2, bool))])
    with pytest.raises(DataError, match="'s1' among them"):
        sequence_anndata(encode_stream(sae, good), pd.DataFrame({"sequence_id": ["s0"]}), sae)
