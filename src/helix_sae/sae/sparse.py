"""Active (token, feature) pairs: decoding and gradients that touch nothing else.

A batch of codes with a few active features a token is kept as its active pairs, grouped by token. Decoding and the
gradients of the active values and of the weight rows are then gathers, a small share of the dense products' work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class ActiveCodes(NamedTuple):
    """Codes of a batch as active pairs in row (token) order.

    Attributes
    ----------
    values : Tensor (n_active,)
        Code values.
    features : int64 (n_active,)
        Feature of each value.
    offsets : int64 (n + 1,)
        Row ``i`` owns the pairs ``offsets[i]:offsets[i + 1]``.
    """

    values: Float[Tensor, " n_active"]
    features: Int[Tensor, " n_active"]
    offsets: Int[Tensor, " n_plus_1"]


class FeatureOrder(NamedTuple):
    """The same pairs grouped by feature: a permutation, the token of each pair and the features' offsets."""

    permutation: Int[Tensor, " n_active"]
    tokens: Int[Tensor, " n_active"]
    offsets: Int[Tensor, " d_sae_plus_1"]


def top_k_active(pre: Float[Tensor, "n d_sae"], k: int) -> ActiveCodes:
    """Keep the ``k`` largest pre-activations of each row, negative ones as zeros."""
    values, features = pre.topk(k, dim=1, sorted=False)
    offsets = torch.arange(0, pre.shape[0] * k + 1, k, device=pre.device)
    return ActiveCodes(values.relu_().reshape(-1), features.reshape(-1), offsets)


def nonzero_active(codes: Float[Tensor, "n d_sae"]) -> ActiveCodes:
    """Collect the entries of dense codes that are not zero."""
    rows, features = codes.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=codes.shape[0])
    offsets = F.pad(counts.cumsum(0), (1, 0))
    return ActiveCodes(codes[rows, features], features, offsets)


def to_dense(active: ActiveCodes, d_sae: int) -> Float[Tensor, "n d_sae"]:
    """Write active pairs into a dense matrix."""
    n = active.offsets.numel() - 1
    rows = row_of_pair(active)
    dense = active.values.new_zeros(n, d_sae)
    dense[rows, active.features] = active.values
    return dense


def row_of_pair(active: ActiveCodes) -> Int[Tensor, " n_active"]:
    """Token of each pair."""
    counts = active.offsets.diff()
    return torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts)


def decode_active(active: ActiveCodes, decoder: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "n d_in"]:
    """Return ``codes @ decoder``."""
    return F.embedding_bag(
        active.features,
        decoder,
        active.offsets,
        per_sample_weights=active.values,
        mode="sum",
        include_last_offset=True,
    )


def value_gradient(
    active: ActiveCodes,
    gradient: Float[Tensor, "n d_in"],
    decoder: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, " n_active"]:
    """Return ``<gradient[token], decoder[feature]>`` of each pair: the gradient of the codes' values."""
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        gradient, decoder, active.features, active.offsets, row_of_pair(active), 0, -1
    )


def by_feature(active: ActiveCodes, d_sae: int) -> FeatureOrder:
    """Group the pairs by feature, tokens ascending inside each."""
    if active.features.device.type == "cpu":
        shape = (active.offsets.numel() - 1, d_sae)
        order = np.arange(active.features.numel(), dtype=np.int32)
        rows = (order, active.features.to(torch.int32).numpy(), active.offsets.to(torch.int32).numpy())
        columns = scipy.sparse.csr_array(rows, shape=shape).tocsc()
        return FeatureOrder(
            *(torch.from_numpy(a).long() for a in (columns.data, columns.indices, columns.indptr))
        )
    permutation = torch.sort(active.features, stable=True).indices
    counts = torch.bincount(active.features, minlength=d_sae)
    return FeatureOrder(permutation, row_of_pair(active)[permutation], F.pad(counts.cumsum(0), (1, 0)))


def weight_gradient(
    order: FeatureOrder, values: Float[Tensor, " n_active"], rows: Float[Tensor, "n d_in"]
) -> Float[Tensor, "d_sae d_in"]:
    """Return ``values^T @ rows``, where ``values`` are given on the pairs in token order."""
    return F.embedding_bag(
        order.tokens,
        rows,
        order.offsets,
        per_sample_weights=values[order.permutation],
        mode="sum",
        include_last_offset=True,
    )


def feature_sum(
    active: ActiveCodes, values: Float[Tensor, " n_active"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """Sum of ``values`` (one a pair) over each feature's pairs."""
    return torch.bincount(active.features, weights=values, minlength=d_sae).to(values.dtype)
