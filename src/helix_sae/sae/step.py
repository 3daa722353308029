"""Gradients of reconstruction and L1, by hand: through active pairs only, or dense.

Both walk the same chain: ``pre = (z - b_dec) W_enc^T + b_enc``, ``c = f(pre)`` with ``f' = 1`` where ``c > 0``,
``z_hat = c W_dec + b_dec``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.objective import Params, StepResult
from helix_sae.sae.sparse import (
    ActiveCodes,
    by_feature,
    decode_active,
    feature_sum,
    value_gradient,
    weight_gradient,
)


class Batch(NamedTuple):
    """Scaled activations, the same less ``b_dec``, and the pre-activations."""

    z: Float[Tensor, "n d_in"]
    centred: Float[Tensor, "n d_in"]
    pre: Float[Tensor, "n d_sae"]


def encode_batch(params: Params, z: Float[Tensor, "n d_in"]) -> Batch:
    """Compute the pre-activations of a batch."""
    centred = z - params["b_dec"]
    return Batch(z, centred, torch.addmm(params["b_enc"], centred, params["encoder"].T))


def sparse_gradients(params: Params, batch: Batch, active: ActiveCodes, penalty: float = 0.0) -> StepResult:
    """Loss ``|z - z_hat|^2 / d_in + penalty * sum(codes)``, averaged over tokens, and its gradient by active pairs."""
    n, d_in = batch.z.shape
    d_sae = params["b_enc"].numel()
    residual = decode_active(active, params["decoder"]).add_(params["b_dec"]).sub_(batch.z)
    gradient = residual * (2.0 / (n * d_in))
    value_grad = value_gradient(active, gradient, params["decoder"]).add_(penalty / n)
    value_grad.mul_(active.values > 0)
    order = by_feature(active, d_sae)
    bias = feature_sum(active, value_grad, d_sae)
    gradients = {
        "encoder": weight_gradient(order, value_grad, batch.centred),
        "b_enc": bias,
        "decoder": weight_gradient(order, active.values, gradient),
        "b_dec": gradient.sum(0).sub_(bias @ params["encoder"]),
    }
    fired = torch.bincount(active.features[active.values > 0], minlength=d_sae)
    return _result(gradients, residual, active.values.sum() / n, fired, penalty)


def dense_gradients(
    params: Params, batch: Batch, codes: Float[Tensor, "n d_sae"], penalty: float = 0.0
) -> StepResult:
    """The same from dense codes, in four matrix products."""
    n, d_in = batch.z.shape
    mask = codes > 0
    residual = torch.addmm(params["b_dec"], codes, params["decoder"]).sub_(batch.z)
    gradient = residual * (2.0 / (n * d_in))
    value_grad = (gradient @ params["decoder"].T).add_(penalty / n).mul_(mask)
    bias = value_grad.sum(0)
    gradients = {
        "encoder": value_grad.T @ batch.centred,
        "b_enc": bias,
        "decoder": codes.T @ gradient,
        "b_dec": gradient.sum(0).sub_(bias @ params["encoder"]),
    }
    return _result(gradients, residual, codes.sum() / n, mask.sum(0), penalty)


def _result(gradients: Params, residual: Tensor, l1: Tensor, fired: Tensor, penalty: float) -> StepResult:
    squared_error = residual.square().sum()
    loss = squared_error / residual.numel() + penalty * l1
    return StepResult(gradients, residual, squared_error, l1, loss, fired)
