"""Matryoshka BatchTopK: nested dictionaries (Bussmann et al. 2025, arXiv:2503.17547).

Codes as BatchTopK. Each prefix of the dictionary, ``m_1 < m_2 < ... = d_sae`` features long, has to
reconstruct by itself: loss ``mean_g |z - z_hat_g|^2 / d_in`` with
``z_hat_g = sum_{j < m_g} c_j d_j + b_dec``, and AuxK on the whole. Early features stay general, so that later
ones cannot absorb them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.architectures.batchtopk import BatchChoice, keep_batch_top
from helix_sae.sae.auxiliary import add_auxiliary_gradient, auxiliary_loss
from helix_sae.sae.config import MatryoshkaConfig
from helix_sae.sae.objective import Forward, Params, StepContext, StepResult, reconstruction_loss
from helix_sae.sae.sparse import (
    ActiveCodes,
    FeatureOrder,
    by_feature,
    code_gradient,
    decode_active,
    kept,
    weight_gradient,
)
from helix_sae.sae.step import encoder_gradients, sparse_result


class _Nested(NamedTuple):
    """Residual of the whole; gradients with respect to pairs, decoder and ``b_dec``; the loss."""

    residual: Float[Tensor, "n d_in"]
    codes: Float[Tensor, " n_active"]
    decoder: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]
    loss: Float[Tensor, ""]


class MatryoshkaObjective(BatchChoice[MatryoshkaConfig]):
    """Training side; see the module."""

    def __init__(self, config: MatryoshkaConfig) -> None:
        super().__init__(config)
        self.prefixes = config.prefixes

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        pre = (z - params["b_dec"]) @ params["encoder"].T + params["b_enc"]
        codes = keep_batch_top(pre, self.config.k)
        reconstruction, loss = params["b_dec"], z.new_zeros(())
        for stop in self.prefixes:
            reconstruction = codes[:, :stop] @ params["decoder"][:stop] + params["b_dec"]
            loss = loss + reconstruction_loss(z, reconstruction) / len(self.prefixes)
        loss = loss + auxiliary_loss(self.config, params, pre, z - reconstruction, context.dead)
        return Forward(loss, codes, reconstruction)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient through the active pairs only."""
        centred = z - params["b_dec"]
        active = self.choose(params, centred, context.workers)
        order = by_feature(active, self.d_sae)
        live = active.codes > 0
        nested = self._nested(params, z, active, order)
        products = nested.codes.mul_(live)
        gradients = encoder_gradients(params, centred, active, order, products, context.workers)
        gradients["decoder"] = nested.decoder
        gradients["b_dec"] += nested.b_dec
        result = sparse_result(gradients, nested.residual, active, live, loss=nested.loss)
        return add_auxiliary_gradient(self.config, params, centred, result, context.dead)

    def _nested(
        self, params: Params, z: Float[Tensor, "n d_in"], active: ActiveCodes, order: FeatureOrder
    ) -> _Nested:
        """Walk the prefixes outwards for the residuals, then inwards: a feature answers for every prefix it is in."""
        starts = (0, *self.prefixes[:-1])
        masks = [
            (active.features >= a) & (active.features < b) for a, b in zip(starts, self.prefixes, strict=True)
        ]
        residual = params["b_dec"] - z
        residuals: list[Tensor] = []
        for mask in masks:
            residual = residual + decode_active(kept(active, mask), params["decoder"])
            residuals.append(residual)
        loss = torch.stack([r.square().sum() for r in residuals]).mean() / z.numel()

        scale = 2.0 / (z.numel() * len(residuals))
        codes, decoder = torch.zeros_like(active.codes), torch.empty_like(params["decoder"])
        gradient = torch.zeros_like(z)
        for start, stop, mask, error in reversed(
            list(zip(starts, self.prefixes, masks, residuals, strict=True))
        ):
            gradient = gradient.add(error, alpha=scale)
            codes[mask] = code_gradient(kept(active, mask), gradient, params["decoder"])
            decoder[start:stop] = weight_gradient(_features_of(order, start, stop), active.codes, gradient)
        return _Nested(residuals[-1], codes, decoder, gradient.sum(0), loss)


def _features_of(order: FeatureOrder, start: int, stop: int) -> FeatureOrder:
    offsets = order.offsets[start : stop + 1]
    pairs = slice(int(offsets[0]), int(offsets[-1]))
    return FeatureOrder(order.permutation[pairs], order.tokens[pairs], offsets - offsets[0])
