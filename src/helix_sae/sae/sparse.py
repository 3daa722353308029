"""Active (token, feature) pairs: decoding and gradients that touch nothing else.

A batch of codes with a few active features a token is kept as its active pairs, grouped by token. Decoding
and the gradients of the active values and of the weight rows are then gathers, a small share of the dense
products' work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.sae.workers import SERIAL, Workers

_pair_products: Callable[..., Tensor] = torch.ops.aten._embedding_bag_per_sample_weights_backward  # pyright: ignore[reportAssignmentType]
"""``<gradient[row], weight[column]>`` of each pair: the part of ``embedding_bag``'s backward that is needed
here."""


class ActiveCodes(NamedTuple):
    """Codes of a batch as active pairs in row (token) order.

    Attributes
    ----------
    codes : Tensor (n_active,)
        Code of each pair; may be 0.
    features : int64 (n_active,)
        Feature of each pair.
    offsets : int64 (n + 1,)
        Row ``i`` owns the pairs ``offsets[i]:offsets[i + 1]``.
    """

    codes: Float[Tensor, " n_active"]
    features: Int[Tensor, " n_active"]
    offsets: Int[Tensor, " n_plus_1"]


class FeatureOrder(NamedTuple):
    """The same pairs grouped by feature: a permutation, the token of each pair and the features' offsets."""

    permutation: Int[Tensor, " n_active"]
    tokens: Int[Tensor, " n_active"]
    offsets: Int[Tensor, " d_sae_plus_1"]


def nonzero_active(
    codes: Float[Tensor, "n d_sae"], mask: Bool[Tensor, "n d_sae"] | None = None
) -> ActiveCodes:
    """Collect the entries of dense codes where ``mask`` is set, by default those that are not zero."""
    rows, features = (codes if mask is None else mask).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=codes.shape[0])
    return ActiveCodes(codes[rows, features], features, F.pad(counts.cumsum(0), (1, 0)))


def to_dense(active: ActiveCodes, d_sae: int) -> Float[Tensor, "n d_sae"]:
    """Write active pairs into a dense matrix."""
    n = active.offsets.numel() - 1
    rows = row_of_pair(active)
    dense = active.codes.new_zeros(n, d_sae)
    dense[rows, active.features] = active.codes
    return dense


def row_of_pair(active: ActiveCodes) -> Int[Tensor, " n_active"]:
    """Token of each pair."""
    counts = active.offsets.diff()
    rows = torch.arange(counts.numel(), device=counts.device)
    # The size is known: without it a GPU would be waited for.
    return torch.repeat_interleave(rows, counts, output_size=active.features.numel())


def decode_active(active: ActiveCodes, decoder: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "n d_in"]:
    """Return ``codes @ decoder``."""
    return F.embedding_bag(
        active.features,
        decoder,
        active.offsets,
        per_sample_weights=active.codes,
        mode="sum",
        include_last_offset=True,
    )


def code_gradient(
    active: ActiveCodes,
    gradient: Float[Tensor, "n d_in"],
    decoder: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, " n_active"]:
    """Return ``<gradient[token], decoder[feature]>`` of each pair: the gradient of the codes."""
    rows = row_of_pair(active)
    return _pair_products(gradient, decoder, active.features, active.offsets, rows, 0, -1)


def rows_of(active: ActiveCodes, rows: slice) -> ActiveCodes:
    """Return the pairs of a range of rows (views)."""
    start, stop = int(active.offsets[rows.start]), int(active.offsets[rows.stop])
    offsets = active.offsets[rows.start : rows.stop + 1] - start
    return ActiveCodes(active.codes[start:stop], active.features[start:stop], offsets)


def kept(active: ActiveCodes, mask: Bool[Tensor, " n_active"]) -> ActiveCodes:
    """Return the pairs where ``mask`` is set."""
    before = F.pad(mask.cumsum(0), (1, 0))
    return ActiveCodes(active.codes[mask], active.features[mask], before[active.offsets])


def by_feature(active: ActiveCodes, d_sae: int) -> FeatureOrder:
    """Group the pairs by feature, tokens ascending inside each."""
    if active.features.device.type == "cpu":
        shape = (active.offsets.numel() - 1, d_sae)
        order = np.arange(active.features.numel(), dtype=np.int32)
        rows = (order, active.features.to(torch.int32).numpy(), active.offsets.to(torch.int32).numpy())
        columns = scipy.sparse.csr_array(rows, shape=shape).tocsc()
        arrays = (columns.data, columns.indices, columns.indptr)
        return FeatureOrder(*(torch.from_numpy(array).long() for array in arrays))
    permutation = torch.sort(active.features, stable=True).indices
    counts = feature_sum(active, torch.ones_like(active.features), d_sae)
    return FeatureOrder(permutation, row_of_pair(active)[permutation], F.pad(counts.cumsum(0), (1, 0)))


def weight_gradient(
    order: FeatureOrder,
    values: Float[Tensor, " n_active"],
    rows: Float[Tensor, "n d_in"],
    workers: Workers = SERIAL,
) -> Float[Tensor, "d_sae d_in"]:
    """Return ``values^T @ rows``, where ``values`` are given on the pairs in token order."""
    transposed = ActiveCodes(values[order.permutation], order.tokens, order.offsets)
    if workers.n_threads == 1:
        return decode_active(transposed, rows)
    n_features = order.offsets.numel() - 1
    result = torch.empty(n_features, rows.shape[1], dtype=rows.dtype, device=rows.device)

    def gather(features: slice) -> None:
        result[features] = decode_active(rows_of(transposed, features), rows)

    size = -(-n_features // (2 * workers.n_threads))
    workers.map(gather, (slice(i, min(n_features, i + size)) for i in range(0, n_features, size)))
    return result


def feature_sum(
    active: ActiveCodes, values: Float[Tensor, " n_active"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """Sum ``values`` (one a pair) over each feature's pairs."""
    if values.device.type == "cpu":
        return torch.bincount(active.features, weights=values, minlength=d_sae).to(values.dtype)
    # bincount would wait for a GPU, to learn the largest feature.
    return values.new_zeros(d_sae).index_add_(0, active.features, values)
