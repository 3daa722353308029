"""Gradients of reconstruction and L1, by hand: through active pairs only, or dense.

Both walk the same chain: ``pre = (z - b_dec) W_enc^T + b_enc``, ``c = f(pre)`` with ``f' = 1`` where
``c > 0``, ``z_hat = c W_dec + b_dec``. Results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helix_sae.sae.objective import Params, StepResult
from helix_sae.sae.sparse import (
    ActiveCodes,
    FeatureOrder,
    by_feature,
    code_gradient,
    decode_active,
    feature_sum,
    rows_of,
    weight_gradient,
)
from helix_sae.sae.workers import SERIAL, Workers

_ROWS = 512
_SHARDS = 4
_CACHED = 2**17
"""Numbers of a matrix that stay in the second cache together with the four others of a step."""


class Reconstruction(NamedTuple):
    """``z_hat - z``, the loss's gradient with respect to ``z_hat``, and with respect to each pair's code."""

    residual: Float[Tensor, "n d_in"]
    gradient: Float[Tensor, "n d_in"]
    codes: Float[Tensor, " n_active"]


def reconstruct(
    params: Params, z: Float[Tensor, "n d_in"], active: ActiveCodes, workers: Workers = SERIAL
) -> Reconstruction:
    """Decode active pairs and send the gradient of ``|z - z_hat|^2 / d_in`` (mean over tokens) back to them."""
    n, d_in = z.shape
    decoder = params["decoder"]

    def part(pairs: ActiveCodes, wanted: Float[Tensor, "rows d_in"]) -> Reconstruction:
        residual = decode_active(pairs, decoder).add_(params["b_dec"]).sub_(wanted)
        gradient = residual * (2.0 / (n * d_in))
        return Reconstruction(residual, gradient, code_gradient(pairs, gradient, decoder))

    if workers.n_threads == 1:
        return part(active, z)
    parts = workers.map(lambda rows: part(rows_of(active, rows), z[rows]), _row_parts(n, workers))
    return Reconstruction(*(torch.cat(arrays) for arrays in zip(*parts, strict=True)))


def encoder_gradients(
    params: Params,
    centred: Float[Tensor, "n d_in"],
    active: ActiveCodes,
    order: FeatureOrder,
    products: Float[Tensor, " n_active"],
    workers: Workers = SERIAL,
) -> Params:
    """Gradients of ``encoder`` and, through ``z - b_dec``, of ``b_dec``, from those of the pairs' encoder products.

    The ``b_enc`` returned is the products' gradient summed over tokens.
    """
    summed = feature_sum(active, products, params["encoder"].shape[0])
    return {
        "encoder": weight_gradient(order, products, centred, workers),
        "b_enc": summed,
        "b_dec": -(summed @ params["encoder"]).float(),
    }


def sparse_gradients(
    params: Params,
    z: Float[Tensor, "n d_in"],
    centred: Float[Tensor, "n d_in"],
    active: ActiveCodes,
    penalty: float = 0.0,
    workers: Workers = SERIAL,
) -> StepResult:
    """Loss ``|z - z_hat|^2 / d_in + penalty * sum(codes)``, averaged over tokens, and its gradient by active pairs."""
    live = active.codes > 0
    order = by_feature(active, params["encoder"].shape[0])
    reconstruction = reconstruct(params, z, active, workers)
    products = reconstruction.codes.add_(penalty / z.shape[0]).mul_(live)
    gradients = encoder_gradients(params, centred, active, order, products, workers)
    gradients["decoder"] = weight_gradient(order, active.codes, reconstruction.gradient, workers)
    gradients["b_dec"] += reconstruction.gradient.sum(0)
    return sparse_result(gradients, reconstruction.residual, active, live, penalty)


def sparse_result(
    gradients: Params,
    residual: Float[Tensor, "n d_in"],
    active: ActiveCodes,
    live: Bool[Tensor, " n_active"],
    penalty: float = 0.0,
    loss: Float[Tensor, ""] | None = None,
) -> StepResult:
    """Measurements of a step whose codes are active pairs; ``loss`` by default that of reconstruction and L1."""
    squared_error = residual.square().sum()
    l1 = active.codes.sum() / residual.shape[0]
    fired = feature_sum(active, live.long(), gradients["encoder"].shape[0])
    if loss is None:
        loss = squared_error / residual.numel() + penalty * l1
    return StepResult(gradients, residual, squared_error, l1, loss, fired)


def dense_gradients(
    params: Params,
    z: Float[Tensor, "n d_in"],
    centred: Float[Tensor, "n d_in"],
    penalty: float = 0.0,
    workers: Workers = SERIAL,
) -> StepResult:
    """Compute the same for ReLU codes, dense, block by block of rows."""
    n = z.shape[0]
    size = -(-n // _SHARDS) if z.device.type == "cpu" else n
    residual = torch.empty_like(z)
    shards = [slice(start, min(n, start + size)) for start in range(0, n, size)]
    parts = workers.map(lambda rows: _dense_part(params, z, centred, residual, rows, penalty / n), shards)
    gradients, l1, fired = parts[0]
    for more, more_l1, more_fired in parts[1:]:
        for name, value in more.items():
            gradients[name] += value
        l1 += more_l1
        fired += more_fired
    gradients["b_dec"] = residual.sum(0).mul_(2.0 / residual.numel()) - gradients["b_enc"] @ params["encoder"]
    squared_error = residual.square().sum()
    loss = squared_error / residual.numel() + penalty * l1 / n
    return StepResult(gradients, residual, squared_error, l1 / n, loss, fired.to(torch.int64))


def _dense_part(
    params: Params, z: Tensor, centred: Tensor, residual: Tensor, shard: slice, price: float
) -> tuple[Params, Tensor, Tensor]:
    """Gradient sums over a shard of rows, summed codes, and counts of active codes (as floats)."""
    encoder, decoder = params["encoder"], params["decoder"]
    sums = {
        "encoder": torch.zeros_like(encoder),
        "b_enc": torch.zeros_like(params["b_enc"]),
        "decoder": torch.zeros_like(decoder),
    }
    l1, fired = z.new_zeros(()), z.new_zeros(encoder.shape[0])
    block = _ROWS if z.device.type == "cpu" else z.shape[0]
    for start in range(shard.start, shard.stop, block):
        rows = slice(start, min(shard.stop, start + block))
        # Under autocast the products are bfloat16; what is summed up stays float32.
        codes = torch.addmm(params["b_enc"], centred[rows], encoder.T).float().relu_()
        error = torch.addmm(params["b_dec"], codes, decoder).float().sub_(z[rows])
        residual[rows] = error
        gradient = error.mul_(2.0 / z.numel())
        products = torch.ops.aten.threshold_backward((gradient @ decoder.T).float().add_(price), codes, 0.0)  # pyright: ignore[reportCallIssue]
        sums["encoder"].addmm_(products.T, centred[rows])
        sums["decoder"].addmm_(codes.T, gradient)
        sums["b_enc"] += products.sum(0)
        l1 += codes.sum()
        fired += codes.sign_().sum(0)
    return sums, l1, fired


def stacked_dense_gradients(
    params: Params, z: Float[Tensor, "m n d_in"], penalty: Float[Tensor, " m"]
) -> StepResult:
    """Compute :func:`dense_gradients` of ``m`` SAEs of one shape, some at a time so that the codes stay in the cache."""
    m, n, d_in = z.shape
    wide = n * max(d_in, params["encoder"].shape[1])
    size = max(1, _CACHED // wide) if z.device.type == "cpu" else m
    slices = [slice(start, min(m, start + size)) for start in range(0, m, size)]
    parts = [_stacked_part({k: v[s] for k, v in params.items()}, z[s], penalty[s]) for s in slices]
    if len(parts) == 1:
        return parts[0]
    gradients = {name: torch.cat([part.gradients[name] for part in parts]) for name in params}
    rest = ("residual", "squared_error", "l1", "loss", "fired")
    return StepResult(gradients, *(torch.cat([getattr(part, name) for part in parts]) for name in rest))


def _stacked_part(params: Params, z: Float[Tensor, "m n d_in"], penalty: Float[Tensor, " m"]) -> StepResult:
    m, n, d_in = z.shape
    encoder, decoder = params["encoder"], params["decoder"]
    centred = z - params["b_dec"].unsqueeze(1)
    codes = torch.baddbmm(params["b_enc"].unsqueeze(1), centred, encoder.mT).float().relu_()
    residual = torch.bmm(codes, decoder).float().sub_(centred)
    gradient = residual * (2.0 / (n * d_in))
    products = torch.bmm(gradient, decoder.mT).float().add_((penalty / n).view(m, 1, 1))
    products = torch.ops.aten.threshold_backward(products, codes, 0.0)  # pyright: ignore[reportCallIssue]
    # Sums over tokens as products too: torch would go through the rows one by one.
    ones = z.new_ones(m, 1, n)
    summed = torch.bmm(ones, products).float()
    gradients = {
        "encoder": torch.bmm(products.mT, centred).float(),
        "b_enc": summed[:, 0],
        "decoder": torch.bmm(codes.mT, gradient).float(),
        "b_dec": (torch.bmm(ones, gradient).float() - torch.bmm(summed, encoder).float())[:, 0],
    }
    l1 = torch.bmm(ones, codes).float().sum((1, 2)) / n
    squared_error = residual.flatten(1).square().sum(1)
    loss = squared_error / (n * d_in) + penalty * l1
    fired = torch.bmm(ones, codes.sign_()).round()[:, 0].to(torch.int64)
    return StepResult(gradients, residual, squared_error, l1, loss, fired)


def _row_parts(n: int, workers: Workers) -> list[slice]:
    size = -(-n // (2 * workers.n_threads))
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]
