"""From activations to active pairs: the encoder's product and the choice of features in one go.

On the CPU rows are taken in blocks, so that a block's pre-activations are still in the cache when its
features are chosen (:mod:`helix_sae.sae.kernels`); elsewhere by torch's own operations. ``weight`` is (d_sae,
d_in), and ``pre = centred @ weight.T + bias``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.kernels import entries_above, top_k_rows
from helix_sae.sae.sparse import ActiveCodes, kept, nonzero_active
from helix_sae.sae.workers import SERIAL, Workers

_BLOCK_BYTES = 2**21
"""Pre-activations of a block: what a core's own cache and its share of the common one hold."""


def row_blocks(n: int, d_sae: int) -> Iterator[slice]:
    """Cut ``n`` rows into blocks whose pre-activations stay in the cache."""
    size = max(64, _BLOCK_BYTES // (4 * d_sae) // 64 * 64)
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def top_k_active(
    centred: Float[Tensor, "n d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    workers: Workers = SERIAL,
) -> ActiveCodes:
    """Keep the ``k`` largest pre-activations of each row, negative ones as zeros."""
    n = centred.shape[0]
    offsets = torch.arange(0, n * k + 1, k, device=centred.device)
    if centred.device.type != "cpu":
        codes, features = torch.addmm(bias, centred, weight.T).float().topk(k, dim=1, sorted=False)
        return ActiveCodes(codes.relu().reshape(-1), features.reshape(-1), offsets)
    codes = torch.empty(n, k)
    features = torch.empty(n, k, dtype=torch.int64)

    def choose(rows: slice) -> None:
        pre = (centred[rows] @ weight.T).float()  # autocast may have made it bfloat16
        top_k_rows(pre.numpy(), bias.numpy(), k, codes[rows].numpy(), features[rows].numpy())

    workers.map(choose, row_blocks(n, weight.shape[0]))
    return ActiveCodes(codes.view(-1), features.view(-1), offsets)


def active_above(
    centred: Float[Tensor, "n d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, " d_sae"],
    workers: Workers = SERIAL,
) -> ActiveCodes:
    """Keep the pre-activations that exceed their feature's threshold."""
    if centred.device.type != "cpu":
        pre = torch.addmm(bias, centred, weight.T).float()
        return nonzero_active(pre, pre > threshold)

    def choose(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        pre = (centred[rows] @ weight.T).float()
        # Room for the worst case: memory that is never touched is never given out.
        codes = torch.empty(pre.numel() + 1)
        features = torch.empty(pre.numel() + 1, dtype=torch.int64)
        counts = torch.empty(pre.shape[0], dtype=torch.int64)
        arrays = (t.numpy() for t in (pre, bias, threshold, codes, features, counts))
        size = int(entries_above(*arrays))
        return codes[:size].clone(), features[:size].clone(), counts

    parts = workers.map(choose, row_blocks(centred.shape[0], weight.shape[0]))
    codes, features, counts = (torch.cat(part) for part in zip(*parts, strict=True))
    return ActiveCodes(codes, features, F.pad(counts.cumsum(0), (1, 0)))


def density_above(
    centred: Float[Tensor, "n d_in"], weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"]
) -> float:
    """Share of positive pre-activations, measured on the first rows."""
    pre = torch.addmm(bias, centred[:128], weight.T)
    return float((pre > 0).float().mean())


def largest_active(active: ActiveCodes, count: int) -> tuple[ActiveCodes, float]:
    """Keep the ``count`` largest codes of a batch and give the smallest of them; ties in row order.

    Fewer pairs than ``count`` are all kept, with the smallest given as 0.
    """
    if active.codes.numel() < count:
        return active, 0.0
    if active.codes.device.type == "cpu":
        edge = torch.kthvalue(active.codes, active.codes.numel() - count + 1).values
    else:  # which has many blocks of a GPU at work, where kthvalue has one
        edge = active.codes.topk(count, sorted=False).values.amin()
    mask = active.codes > edge
    tied = (active.codes == edge).nonzero().squeeze(1)
    mask[tied[: count - int(mask.sum())]] = True
    return kept(active, mask), float(edge)
