"""ReLU with an L1 penalty (Bricken et al. 2023; Cunningham et al. 2023, arXiv:2309.08600).

``c = ReLU(W_enc (x - b_dec) + b_enc)``, ``x_hat = W_dec^T c + b_dec``,
loss ``|z - z_hat|^2 / d_in + l1_coefficient * sum_j c_j |d_j| / (0.01 sqrt(d_in))``: as ``z`` has mean norm
``sqrt(d_in)``, codes are counted in per cent of it. Decoder rows ``d_j`` are kept at unit norm, so the weighting by
their norm is 1.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import L1Config, ReluConfig
from helix_sae.sae.objective import Objective, Params, StepContext, StepResult, fold
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.sparse import nonzero_active
from helix_sae.sae.step import Batch, dense_gradients, encode_batch, sparse_gradients

SPARSE_BELOW = 0.10
"""Share of active codes below which the sparse gradient is the faster one (measured, 2 cores)."""


class ReluAutoencoder(SparseAutoencoder):
    """Inference side; see the module."""

    b_enc: Float[Tensor, " d_sae"]

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations."""
        return torch.relu(self.project(x) + self.b_enc)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``standard``."""
        return {"architecture": "standard"}, dict(self.named_parameters())


class ReluObjective(Objective[ReluConfig]):
    """Training side; see the module."""

    def loss(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Float[Tensor, ""]:
        """Definition of the loss."""
        return relu_loss(self.config, params, z, context)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient, sparse or dense by the density of the batch."""
        return relu_gradients(params, encode_batch(params, z), self.config.penalty * context.sparsity_weight)

    def export(self, params: Params, scaling: InputScaling) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        return ReluAutoencoder(self.config, fold(params, scaling))


def relu_loss(
    config: L1Config, params: Params, z: Float[Tensor, "n d_in"], context: StepContext
) -> Float[Tensor, ""]:
    """Reconstruction error plus L1, averaged over tokens."""
    codes = torch.relu((z - params["b_dec"]) @ params["encoder"].T + params["b_enc"])
    error = z - (codes @ params["decoder"] + params["b_dec"])
    penalty = config.penalty * context.sparsity_weight
    return error.square().sum(1).mean() / z.shape[1] + penalty * codes.sum(1).mean()


def relu_gradients(params: Params, batch: Batch, penalty: float) -> StepResult:
    """Gradient of :func:`relu_loss`; overwrites ``batch.pre`` with the codes."""
    codes = batch.pre.relu_()
    if int(torch.count_nonzero(codes)) < SPARSE_BELOW * codes.numel():
        return sparse_gradients(params, batch, nonzero_active(codes), penalty)
    return dense_gradients(params, batch, codes, penalty)
