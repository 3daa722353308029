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
from helix_sae.sae.objective import (
    Forward,
    Objective,
    Params,
    StepContext,
    StepResult,
    fold,
    reconstruction_loss,
)
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.selection import active_above, density_above
from helix_sae.sae.sparse import ActiveCodes
from helix_sae.sae.step import dense_gradients, sparse_gradients

SPARSE_BELOW = 0.15
"""Share of active codes below which the sparse gradient is the faster one."""


class ReluAutoencoder(SparseAutoencoder):
    """Inference side; see the module."""

    b_enc: Float[Tensor, " d_sae"]

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations."""
        return torch.relu(self.project(x) + self.b_enc)

    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs."""
        threshold = torch.zeros_like(self.b_enc)
        return active_above(*self.encoder_inputs(x), self.b_enc.detach(), threshold)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``standard``."""
        return {"architecture": "standard"}, dict(self.named_parameters())


class ReluObjective(Objective[ReluConfig]):
    """Training side; see the module."""

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        return relu_forward(self.config, params, z, context)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient, sparse or dense by the density of the batch."""
        return relu_gradients(self.config, params, z, context)

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        return ReluAutoencoder(self.config, fold(params, scaling))


def relu_forward(
    config: L1Config, params: Params, z: Float[Tensor, "n d_in"], context: StepContext
) -> Forward:
    """Reconstruction error plus L1, averaged over tokens."""
    codes = torch.relu((z - params["b_dec"]) @ params["encoder"].T + params["b_enc"])
    reconstruction = codes @ params["decoder"] + params["b_dec"]
    penalty = config.penalty * context.sparsity_weight
    loss = reconstruction_loss(z, reconstruction) + penalty * codes.sum(1).mean()
    return Forward(loss, codes, reconstruction)


def relu_gradients(
    config: L1Config, params: Params, z: Float[Tensor, "n d_in"], context: StepContext
) -> StepResult:
    """Gradient of :func:`relu_forward`."""
    penalty = config.penalty * context.sparsity_weight
    centred = z - params["b_dec"]
    if density_above(centred, params["encoder"], params["b_enc"]) > SPARSE_BELOW:
        return dense_gradients(params, z, centred, penalty, context.workers)
    threshold = torch.zeros_like(params["b_enc"])
    active = active_above(centred, params["encoder"], params["b_enc"], threshold, context.workers)
    return sparse_gradients(params, z, centred, active, penalty, context.workers)
